//! Every rule of `docs/rules.md` in a module of its own: what it allows and what it refuses, through the public commands
//! of the real daemons; under each policy profile where the profiles differ.
//!
//! These are the readable proof that the rules hold. What lies deeper, such as crashes at every step, is tested beside the
//! code, under names that begin alike; `docs/rules.md` names all tests of a rule.

mod document;
mod list;
mod scene;

mod a01;
mod a02;
mod a03;
mod a04;
mod a05;
mod a06;
mod a07;
mod a08;
mod a09;
mod d01;
mod d02;
mod d03;
mod d04;
mod d05;
mod d06;
mod d07;
mod d08;
mod d09;
mod d10;
mod d11;
mod i01;
mod i02;
mod i03;
mod i04;
mod i05;
mod i06;
mod i07;
mod k01;
mod k02;
mod k03;
mod k04;
mod k05;
mod k06;
mod k07;
mod k08;
mod k09;
mod k10;
mod k11;
mod k12;
mod k13;
mod k14;
mod k15;
mod m01;
mod m02;
mod m03;
mod m04;
mod s01;
mod s02;
mod s03;
mod s04;
mod s05;
mod s06;
mod s07;
