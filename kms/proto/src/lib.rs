//! What sealblk and sealblk-kms say to each other.
//!
//! sealblk dials the KMS on a Unix socket of type `SOCK_SEQPACKET`, one message a packet ([`channel`]), and
//! claims its attachment with a token ([`token`]). The KMS answers with the configuration, the open store and
//! the lineage key in a memfd ([`key_transfer`]). From then on the KMS sends commands on the same connection and
//! sealblk answers them ([`message`]). A KMS that has come back dials the process ([`control`]). `docs/protocol.md` draws
//! the exchange.
//!
//! Key material has types of its own ([`keys`]), which live in locked memory ([`locked`]) and can be neither
//! printed nor copied nor serialised. What both must know of images of other programs is here, too ([`qcow2`]), and how
//! errors are told ([`causes`]).

pub mod causes;
pub mod channel;
pub mod control;
pub mod key_transfer;
pub mod keys;
pub mod locked;
pub mod message;
pub mod peer;
pub mod process;
pub mod qcow2;
pub mod terminal;
pub mod token;
