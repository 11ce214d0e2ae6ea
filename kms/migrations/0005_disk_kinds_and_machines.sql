-- What a disk is made of (rule D02): it never changes, and what is made from its snapshots has the same.

ALTER TABLE volumes ADD COLUMN kind TEXT NOT NULL DEFAULT 'cloud'
    CHECK (kind = 'cloud' OR (kind = 'local' AND encrypted = 0));
ALTER TABLE volumes ADD COLUMN disk_type TEXT NOT NULL DEFAULT 'ssd'
    CHECK (disk_type IN ('basic', 'efficiency', 'ssd', 'essd'));

-- What is known of an instance's virtual machine (rule A03): its socket, QMP or cloud-hypervisor's, and its boot disk.
ALTER TABLE instances ADD COLUMN vm_socket TEXT;
ALTER TABLE instances ADD COLUMN boot_disk TEXT;

-- Rule D11: not there for anybody until the disks are made that come with it.
ALTER TABLE instances ADD COLUMN made INTEGER NOT NULL DEFAULT 1 CHECK (made IN (0, 1));
