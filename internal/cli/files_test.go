package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gondolin"
)

func TestPcapFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "guest.pcapng")
	var config gondolin.Config
	files, err := (&vmFlags{pcap: name}).openFiles(&config)
	if err != nil || config.Capture == nil {
		t.Fatalf("capture %v, %v", config.Capture, err)
	}
	if err := files.Close(); err != nil {
		t.Error(err)
	}
	if info, err := os.Stat(name); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	config = gondolin.Config{}
	_, err = (&vmFlags{pcap: filepath.Join(name, "below")}).openFiles(&config)
	if err == nil || !strings.Contains(err.Error(), "--pcap") || config.Capture != nil {
		t.Errorf("capture %v, %v", config.Capture, err)
	}
	config = gondolin.Config{}
	if files, err = (&vmFlags{}).openFiles(&config); files != nil || err != nil || config.Capture != nil {
		t.Errorf("without the flag: %v, %v, %v", files, config.Capture, err)
	}
}
