package vfs

import "strings"

// CheckPath returns nil for the path of an entry: "." or names joined by single slashes, each accepted by
// [CheckName]. Otherwise it returns ENAMETOOLONG or EINVAL.
func CheckPath(name string) error {
	if name == "." {
		return nil
	}
	if len(name) > MaxPath {
		return ENAMETOOLONG
	}
	for elem := range strings.SplitSeq(name, "/") {
		if err := CheckName(elem); err != nil {
			return err
		}
	}
	return nil
}

// CheckName returns nil for a single name: 1 to MaxName bytes without NUL and '/', and neither "." nor "..".
// Otherwise it returns ENAMETOOLONG or EINVAL.
func CheckName(name string) error {
	if len(name) > MaxName {
		return ENAMETOOLONG
	}
	if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
		return EINVAL
	}
	return nil
}

// checkTarget returns nil for a target that symlink(2) would accept.
func checkTarget(target string) error {
	switch {
	case target == "":
		return ENOENT
	case len(target) > MaxTarget:
		return ENAMETOOLONG
	case strings.IndexByte(target, 0) >= 0:
		return EINVAL
	}
	return nil
}

// splitPath returns the parent directory and the last element of a valid path other than ".".
func splitPath(name string) (dir, base string) {
	i := strings.LastIndexByte(name, '/')
	if i < 0 {
		return ".", name
	}
	return name[:i], name[i+1:]
}
