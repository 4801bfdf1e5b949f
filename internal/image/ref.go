package image

import (
	"fmt"
	"regexp"
	"strings"
)

// DefaultRef is the image used where none is named; `gondolin image build` makes it.
const DefaultRef = "debian:latest"

// defaultTag is the tag of a name without one.
const defaultTag = "latest"

// refPart is a name or a tag: it becomes a file name.
var refPart = regexp.MustCompile(`^[a-z0-9]+(?:[._-][a-z0-9]+)*$`)

// Ref is a name people give to an image.
type Ref struct {
	Name string
	Tag  string // if empty, latest
}

// ParseRef reads "name" or "name:tag".
func ParseRef(s string) (Ref, error) {
	name, tag, ok := strings.Cut(s, ":")
	if !ok {
		tag = defaultTag
	}
	for _, part := range []string{name, tag} {
		if len(part) > maxName || !refPart.MatchString(part) {
			return Ref{}, fmt.Errorf("cannot use image name %.160q: want name or name:tag of lower-case letters, digits and single dots, dashes or underscores", s)
		}
	}
	return Ref{Name: name, Tag: tag}, nil
}

// String returns name:tag.
func (r Ref) String() string {
	if r.Tag == "" {
		return r.Name + ":" + defaultTag
	}
	return r.Name + ":" + r.Tag
}
