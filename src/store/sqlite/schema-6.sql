-- Records of content that is gone, until they are overwritten.
CREATE TABLE erasure (
    locator  BLOB NOT NULL PRIMARY KEY,
    blob_id  BLOB NOT NULL,
    crc      INTEGER NOT NULL AS (row_crc(locator, blob_id)) STORED
) STRICT, WITHOUT ROWID;
