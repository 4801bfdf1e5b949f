package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/spf13/pflag"

	"gondolin"
)

// auditFlags say where a VM's audit goes.
type auditFlags struct {
	file, limit, sync string
}

func (f *auditFlags) register(flags *pflag.FlagSet) {
	flags.StringVar(&f.file, "audit", "", "append a JSON line for every event to `FILE`: names, connections, requests, commands")
	flags.StringVar(&f.limit, "audit-limit", "", "`SIZE` that the files of --audit may have together; then nothing more is allowed (default 1G)")
	flags.StringVar(&f.sync, "audit-sync", "", "`TIME` after which an event is safe from a crash of the host, such as 1s, or always (default: when the system writes it)")
}

// open opens what the flags name. The caller closes it, unless it is nil.
func (f *auditFlags) open(config *gondolin.Config) (io.Closer, error) {
	if f.file == "" {
		return nil, nil //nolint:nilnil // there is nothing to close
	}
	var options gondolin.AuditFileOptions
	var err error
	if options.MaxTotal, err = parseSize(f.limit); err != nil {
		return nil, usagef("--audit-limit: %w", err)
	}
	switch f.sync {
	case "":
	case "always":
		options.Sync = -1
	default:
		if options.Sync, err = time.ParseDuration(f.sync); err != nil || options.Sync <= 0 {
			return nil, usagef("--audit-sync: %q is no time; give one such as 1s, or always", f.sync)
		}
	}
	info, err := os.Stat(f.file)
	if errors.Is(err, fs.ErrNotExist) || err == nil && info.Mode().IsRegular() {
		file, err := gondolin.OpenAudit(f.file, options)
		if err != nil {
			return nil, err
		}
		config.AuditFile = file
		return file, nil
	}
	pipe, err := os.OpenFile(f.file, os.O_WRONLY|os.O_APPEND, 0) // a pipe or a terminal
	if err != nil {
		return nil, fmt.Errorf("cannot write the audit: %w", err)
	}
	config.Audit = pipe
	return pipe, nil
}
