package gondolin_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"gondolin"
	"gondolin/internal/testenv"
	"gondolin/internal/vmtest"
	"gondolin/vfs"
)

// Two hundred VMs come and go and leave nothing.
func TestCyclesLeakNothing(t *testing.T) {
	vmtest.Needs(t)
	dir := home(t)
	config := gondolin.Config{
		Memory: 256 << 20, CPUs: 1, Host: gondolin.Host{Dir: dir, Accelerator: "tcg"},
		Mounts: map[string]vfs.FS{"/work": vfs.Memory()},
	}
	if _, err := gondolin.WarmTemplate(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	files := tree(t, dir)
	testenv.CheckLeaks(t)
	for range 200 {
		vm, err := gondolin.Start(t.Context(), config)
		if err != nil {
			t.Fatal(err)
		}
		if err := vm.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if after := tree(t, dir); after != files {
		t.Errorf("files before:\n%s\nafter:\n%s", files, after)
	}
}

func tree(t *testing.T, dir string) string {
	t.Helper()
	var list []string
	err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		list = append(list, path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(list, "\n")
}

// beKilled makes this test's binary a host program that starts a VM and waits.
const beKilled = "GONDOLIN_TEST_BE_KILLED"

func TestMain(m *testing.M) {
	if os.Getenv(beKilled) != "" {
		startAndWait()
	}
	os.Exit(m.Run())
}

func startAndWait() {
	vm, err := gondolin.Start(context.Background(), gondolin.Config{Memory: 256 << 20, CPUs: 1, Mounts: map[string]vfs.FS{"/work": vfs.Memory()}})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if err := vm.Command(context.Background(), "true").Run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println("running")
	select {}
}

// A host program that is killed takes its VM with it, whenever it is killed.
func TestHostKilled(t *testing.T) {
	vmtest.Needs(t)
	testenv.NeedsLinux(t)
	for _, after := range []time.Duration{0, 20 * time.Millisecond, 80 * time.Millisecond, 200 * time.Millisecond, -1} {
		t.Run(after.String(), func(t *testing.T) { killHost(t, after) })
	}
}

// killHost kills a host program some time after its start, or once its VM runs.
func killHost(t *testing.T, after time.Duration) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), beKilled+"=1")
	cmd.Stderr = t.Output()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if after < 0 {
		if line, err := bufio.NewReader(out).ReadString('\n'); line != "running\n" {
			t.Errorf("%q, %v", line, err)
		}
	} else {
		<-time.After(after)
	}
	children := descendants(t, cmd.Process.Pid)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if after < 0 && len(children) == 0 {
		t.Error("the VM had no process")
	}
	for _, pid := range children {
		awaitGone(t, pid)
	}
}

// descendants lists the children of pid.
func descendants(t *testing.T, pid int) (list []int) {
	t.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range tasks {
		content, err := os.ReadFile(file)
		if err != nil {
			continue // the thread has ended
		}
		for field := range strings.FieldsSeq(string(content)) {
			if n, err := strconv.Atoi(field); err == nil {
				list = append(list, n)
			}
		}
	}
	return list
}

// awaitGone fails unless the process is gone within 2 s.
func awaitGone(t *testing.T, pid int) {
	t.Helper()
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); runtime.Gosched() {
		if err := syscall.Kill(pid, 0); errors.Is(err, syscall.ESRCH) {
			return
		}
		if stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err == nil && strings.Contains(string(stat), ") Z ") {
			return // dead; whoever adopted it has not looked yet
		}
	}
	t.Errorf("process %d outlived its host by 2 s", pid)
}
