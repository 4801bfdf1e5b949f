package main

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// childrenPSS returns the proportional set size, in bytes, of this process's
// children, which are the VMs (proc(5), smaps_rollup). Linux only.
func childrenPSS() (total int64, err error) {
	tasks, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil || len(tasks) == 0 {
		return 0, fmt.Errorf("cannot find the VMs' processes: this needs Linux's /proc")
	}
	for _, file := range tasks {
		content, err := os.ReadFile(file)
		if err != nil {
			continue // the thread has ended
		}
		for pid := range strings.FieldsSeq(string(content)) {
			n, err := pss(pid)
			if err != nil {
				return 0, err
			}
			total += n
		}
	}
	return total, nil
}

func pss(pid string) (int64, error) {
	f, err := os.Open("/proc/" + pid + "/smaps_rollup")
	if err != nil {
		return 0, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if rest, ok := strings.CutPrefix(lines.Text(), "Pss:"); ok {
			kib, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(rest, "kB")), 10, 64)
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("no Pss of process %s", pid)
}
