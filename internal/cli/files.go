package cli

import (
	"errors"
	"fmt"
	"io"
	"os"

	"gondolin"
)

// closers closes all of its members.
type closers []io.Closer

func (c closers) Close() error {
	var errs []error
	for _, one := range c {
		errs = append(errs, one.Close())
	}
	return errors.Join(errs...)
}

// openFiles opens the files the VM's records go to. The caller closes them,
// unless there are none.
func (f *vmFlags) openFiles(config *gondolin.Config) (io.Closer, error) {
	audit, err := f.audit.open(config)
	if err != nil || f.pcap == "" {
		return audit, err
	}
	open := closers{}
	if audit != nil {
		open = append(open, audit)
	}
	capture, err := os.OpenFile(f.pcap, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("cannot write the capture of --pcap: %w", err), open.Close())
	}
	config.Capture = capture
	return append(open, capture), nil
}
