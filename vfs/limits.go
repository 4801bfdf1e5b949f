package vfs

// Bounds of names and of the memory provider.
const (
	// MaxName is NAME_MAX of linux/limits.h, in bytes.
	MaxName = 255
	// MaxPath is PATH_MAX of linux/limits.h less its NUL: what one Linux path can name, in bytes.
	MaxPath = 4095
	// MaxTarget is the longest target of a symbolic link: what Linux accepts from symlink(2), in bytes.
	MaxTarget = 4095
	// MaxFileSize keeps offset arithmetic away from overflow; it is far above what a quota lets through, in bytes.
	MaxFileSize = 1 << 62

	// MaxXattrName, MaxXattrValue and MaxXattrList are XATTR_NAME_MAX, XATTR_SIZE_MAX and XATTR_LIST_MAX of
	// linux/limits.h, in bytes.
	MaxXattrName  = 255
	MaxXattrValue = 64 << 10
	MaxXattrList  = 64 << 10

	// memoryXattrCost is charged against the byte quota for each extended attribute, besides its name and value.
	memoryXattrCost = 128

	// memoryDefaultBytes is what one guest may make its host hold when nobody chose: enough for a scratch
	// directory, small enough for a laptop.
	memoryDefaultBytes = 1 << 30
	// memoryDefaultInodes keeps the tree's own structures in proportion to the default byte quota.
	memoryDefaultInodes = 1 << 18
	// memoryPage is the unit of storage in bytes: Linux's page size, so that what the guest writes fits exactly.
	memoryPage = 4096
	// memoryEntryCost is charged against the byte quota for each name: the struct, the map slot and a name of up
	// to MaxName bytes.
	memoryEntryCost = 512
	// memoryCopy is the unit of copying within the provider, in bytes.
	memoryCopy = 1 << 20
	// memoryMinShrink is the least number of entries for which a map is replaced by a smaller one.
	memoryMinShrink = 64
	// memoryMaxLinks is EXT4_LINK_MAX, the limit programs know; it keeps the counter far from overflow.
	memoryMaxLinks = 65000
	// mountMaxDevs bounds what Mount remembers of the devices beneath: far more file systems than a host has mounted.
	mountMaxDevs = 4096
	// dirBatch is how many names of a host directory are read at once: a few pages of memory.
	dirBatch = 512
	// dirCopy bounds one call of copy_file_range in bytes, which cannot be interrupted on some file systems.
	dirCopy = 64 << 20
	// dirCreateTries bounds the loop between "missing" and "exists" when others create and remove the same name.
	dirCreateTries = 8
)
