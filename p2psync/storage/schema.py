"""The tables. A script here is never edited once released: a change is a further script."""

FOLDER_MIGRATIONS = (
    """
-- A row is one number that the index as a whole remembers: `replica` and `epoch` (random, 63
-- bits), `sequence` (the highest ever recorded, which may exceed those still in `held`) and
-- `counter` (the highest that `replica` has used in a dot).
CREATE TABLE meta (
    name TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) WITHOUT ROWID;

-- A row is a leap of the sequence at a start, see folder_index.open_folder_index: it never stood
-- between the two.
CREATE TABLE gaps (
    low INTEGER PRIMARY KEY,
    high INTEGER NOT NULL
);

-- A row is what this device holds at a path: a file, directory or symlink on its disk, or the
-- tombstone of what it saw deleted. The sequence is the rowid, so a change of the path is a new
-- row at the end of the table, where those who ask for all after n read it.
CREATE TABLE held (
    sequence INTEGER PRIMARY KEY,
    path TEXT NOT NULL,
    kind INTEGER NOT NULL,     -- core.entry.Kind, of the entry
    size INTEGER NOT NULL,     -- of the entry
    is_copy INTEGER NOT NULL,  -- whether it is a conflict copy
    content_key INTEGER,       -- of a file: the first 6 bytes of its content id
    entry BLOB NOT NULL,       -- core.entry.Entry, see packing.py
    fingerprint BLOB           -- core.entry.Fingerprint as msgpack; NULL for tombstones
);
CREATE UNIQUE INDEX held_by_path ON held (path);
CREATE INDEX held_by_content ON held (content_key) WHERE content_key IS NOT NULL;
CREATE INDEX held_tombstones ON held (sequence) WHERE kind = 0;
CREATE INDEX held_copies ON held (path) WHERE is_copy = 1;

-- A row is a device whose index this one follows. The cursor is how far its index has been
-- received; the acknowledgement is how far it says it has applied ours.
CREATE TABLE peers (
    id INTEGER PRIMARY KEY,
    device BLOB NOT NULL UNIQUE,
    epoch INTEGER NOT NULL DEFAULT 0,
    sequence INTEGER NOT NULL DEFAULT 0,
    acknowledged_epoch INTEGER NOT NULL DEFAULT 0,
    acknowledged_sequence INTEGER NOT NULL DEFAULT 0
);

-- A row is a version that a peer holds at a path and that this device has not settled yet.
-- No number is ever given twice, so that it tells one offer from what replaced it.
CREATE TABLE wanted (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    path TEXT NOT NULL,
    peer INTEGER NOT NULL REFERENCES peers (id) ON DELETE CASCADE,
    sequence INTEGER NOT NULL,  -- the peer's
    kind INTEGER NOT NULL,
    depth INTEGER NOT NULL,     -- of the path; 0 at the folder's top
    size INTEGER NOT NULL,
    size_class INTEGER NOT NULL,  -- 0: at most a chunk; above, one more for each doubling
    content_key INTEGER,        -- of a file of several chunks: as in `held`
    entry BLOB NOT NULL
);
CREATE UNIQUE INDEX wanted_by_path ON wanted (path, peer);
CREATE INDEX wanted_by_peer ON wanted (peer, sequence);
CREATE INDEX wanted_live ON wanted (depth, size_class) WHERE kind > 0;
CREATE INDEX wanted_tombstones ON wanted (depth) WHERE kind = 0;
CREATE INDEX wanted_by_content ON wanted (content_key) WHERE content_key IS NOT NULL;

-- A row is the list of chunks of a file of several chunks, held or wanted.
CREATE TABLE manifests (
    id INTEGER PRIMARY KEY,
    content BLOB NOT NULL UNIQUE,  -- the content id that names the list
    packed BLOB NOT NULL           -- core.manifest
);

-- A row says that a chunk lies in the files of a manifest, and where (its first place there).
CREATE TABLE chunks (
    digest BLOB NOT NULL,
    manifest INTEGER NOT NULL,
    offset INTEGER NOT NULL,
    size INTEGER NOT NULL,
    PRIMARY KEY (digest, manifest)
) WITHOUT ROWID
""",
    """
-- Of a file whose bytes are not the entry's though its fingerprint is: the content id of what they
-- are, empty where they cannot be read.
ALTER TABLE held ADD COLUMN damage BLOB;
CREATE INDEX held_damaged ON held (path) WHERE damage IS NOT NULL;

-- A row is a file that was found so, now or some time ago.
CREATE TABLE findings (
    path TEXT PRIMARY KEY,
    found_ns INTEGER NOT NULL
) WITHOUT ROWID;

-- The one row is how far the reading of all files has come, see ports.Scrub.
CREATE TABLE scrub (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    begun_ns INTEGER NOT NULL,
    finished_ns INTEGER NOT NULL,
    position TEXT NOT NULL,
    files INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    damaged INTEGER NOT NULL
)
""",
    """
-- A row is what a commit is about to show at a path, or shows there, and `held` does not tell yet.
CREATE TABLE underway (
    path TEXT PRIMARY KEY,
    entry BLOB NOT NULL
) WITHOUT ROWID
""",
    """
-- Which tombstones have been dropped so far nobody noted: any of them may have.
INSERT OR REPLACE INTO meta SELECT 'forgotten', value FROM meta WHERE name = 'sequence'
""",
)

DEVICE_MIGRATIONS = (
    """
-- The one row is the last signed roster of the group, as the protocol encodes it.
CREATE TABLE roster (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    body BLOB NOT NULL
);

-- A row is a folder that this device takes part in.
CREATE TABLE folders (
    name TEXT PRIMARY KEY,
    path BLOB NOT NULL,        -- of the directory, in the file system's own bytes
    mode TEXT NOT NULL,
    paused INTEGER NOT NULL,
    token TEXT NOT NULL,
    index_file TEXT NOT NULL,
    shared_with BLOB           -- device IDs of 32 bytes, one after another; NULL: every device
) WITHOUT ROWID;

-- A row is an address at which a device was seen or is said to be: a hint, never trust.
CREATE TABLE addresses (
    number INTEGER PRIMARY KEY,  -- grows with every save, so it orders them by age
    device BLOB NOT NULL,
    host TEXT NOT NULL,
    port INTEGER NOT NULL,
    last_ok_ns INTEGER,          -- when a session with the device last came about there
    UNIQUE (device, host, port)
);

-- A row is a small value that outlives the daemon.
CREATE TABLE settings (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID
""",
)
