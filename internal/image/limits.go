package image

const (
	// maxManifestBytes holds some ten thousand packages; a manifest is read whole before anything in it is believed.
	maxManifestBytes = 1 << 20
	// maxFileBytes is 64 GiB, above any root image that is still distributed as one file; it keeps sizes far from
	// overflow when they are added up.
	maxFileBytes = 64 << 30
	// maxModules, maxPackages, maxWords and maxEnv bound the lists of a manifest; maxText each string in them.
	maxModules  = 256
	maxPackages = 16384
	maxWords    = 64
	maxEnv      = 256
	maxText     = 4096
	// maxName bounds each part of a reference: they are file names.
	maxName = 64
	// minPrefix is how many hexadecimal digits of a digest select an image: fewer could be a word.
	minPrefix = 8
	// maxRefBytes is the size of a ref file, "sha256:", 64 digits and a newline, with room for nothing else.
	maxRefBytes = 7 + 64 + 1
	// maxVerifiedBytes bounds the record of checked files: three entries of a few numbers.
	maxVerifiedBytes = 16 << 10
	// stageTries is how often a staging name is tried whose lock a sweeper happens to hold.
	stageTries = 10
	// hashChunk is how much is hashed between looks at the context.
	hashChunk = 4 << 20
)
