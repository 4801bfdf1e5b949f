package build

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"gondolin/internal/image"
	"gondolin/internal/testenv"
)

// stub is a machine to build on: an /etc, and tools that are shell scripts.
type stub struct {
	t     *testing.T
	dir   string
	store *image.Store
}

const stubRelease = "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nID=debian\nVERSION_CODENAME=bookworm\n"

// goodTools are stand-ins that do what a build sees of the real ones. TREE is a directory with an unpacked kernel.
var goodTools = map[string]string{
	"mmdebstrap": `
for last; do list=$root root=$suite suite=$arg arg=$last; done
list=$last root=$suite
mkdir -p "$root/etc/apt" "$root/.gondolin" "$root/tmp" "$root/usr/bin"
cp "$list" "$root/etc/apt/sources.list"
touch -d 2020-02-02T00:00:00Z "$root/usr/bin/tool"
echo secret >"$root/etc/apt/apt.conf.d-proxy"; mkdir "$root/etc/apt/apt.conf.d"; echo proxy >"$root/etc/apt/apt.conf.d/99mmdebstrap"
echo hostname-of-the-host >"$root/etc/hostname"
printf 'zsh 2\nbash 1\n' >"$root/.gondolin/packages"
touch "$root/.gondolin/linux-image-6.1_amd64.deb"
printf '%s\n' "$@" >TREE/args
echo "I: extracting archives..." >&2`,
	"apt-config": `echo 'Acquire::http::Proxy "http://proxy.invalid:3128";'; echo 'Acquire::CompressionTypes::xz "xz";'; echo 'Acquire::Retries "3";'`,
	"apt-get":    `exit 1`,
	"dpkg-deb":   `mkdir -p "$3/boot"; cp -R TREE/. "$3"; echo kernel >"$3/boot/vmlinuz-6.1.0-test"`,
	"mkfs.erofs": `for a; do root=$image image=$last last=$a; done; (cd "$last" && ls -R) >"$image"; [ -s "$image" ] || echo x >"$image"`,
}

func newStub(t *testing.T, replaced map[string]string) *stub {
	t.Helper()
	testenv.NeedsLinux(t)
	testenv.CheckLeaks(t)
	s := &stub{t: t, dir: t.TempDir()}
	s.write("etc/os-release", stubRelease, 0o644)
	s.write("etc/apt/sources.list", "deb http://user:pass@mirror.invalid/debian bookworm main\n", 0o644)
	modules := "tree/lib/modules/6.1.0-test/"
	s.write(modules+"modules.builtin", "kernel/net/packet/af_packet.ko\nkernel/fs/ext4/ext4.ko\n", 0o644)
	for name, info := range map[string]string{
		"virtio": "depends=virtio_ring", "virtio_ring": "depends=", "virtio_mmio": "depends=virtio,virtio_ring",
		"virtio_pci": "depends=virtio", "virtio_blk": "depends=virtio", "erofs": "depends=libcrc32c",
		"libcrc32c": "softdep=pre: crc32c", "overlay": "", "virtio_console": "", "fuse": "", "virtio_net": "", "virtio-rng": "",
	} {
		s.write(modules+"kernel/"+name+".ko", string(moduleFile(info)), 0o644)
	}
	for name, body := range goodTools {
		if other, ok := replaced[name]; ok {
			body = other
		}
		if body != "absent" {
			body = strings.ReplaceAll(body, "TREE", filepath.Join(s.dir, "tree"))
			s.write("bin/"+name, "#!/bin/bash\n"+body+"\n", 0o755)
		}
	}
	path := filepath.Join(s.dir, "bin")
	if len(replaced) == 0 || !slices.Contains(slices.Collect(mapValues(replaced)), "absent") {
		path += ":/usr/bin:/bin"
	}
	t.Setenv("PATH", path)
	var err error
	if s.store, err = image.Open(filepath.Join(s.dir, "images")); err != nil {
		t.Fatal(err)
	}
	testenv.CheckEmpty(t, filepath.Join(s.store.Dir(), "staging"))
	return s
}

func mapValues(m map[string]string) func(func(string) bool) {
	return func(yield func(string) bool) {
		for _, v := range m {
			if !yield(v) {
				return
			}
		}
	}
}

func (s *stub) write(name, text string, mode os.FileMode) {
	s.t.Helper()
	path := filepath.Join(s.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		s.t.Fatal(err)
	}
}

func (s *stub) builder(opts Options) *builder {
	return &builder{
		opts: opts, store: s.store, etc: filepath.Join(s.dir, "etc"),
		free: func(string) (uint64, error) { return needBytes, nil },
	}
}

// moduleFile is the smallest ELF file with a .modinfo section: header, the section, the section names, section headers.
func moduleFile(info string) []byte {
	content := info + "\x00"
	names := "\x00.modinfo\x00.shstrtab\x00"
	const headerSize = 64
	h := elf.Header64{
		Type: uint16(elf.ET_REL), Machine: uint16(elf.EM_X86_64), Version: 1, Ehsize: headerSize,
		Shoff: uint64(headerSize + len(content) + len(names)), Shentsize: 64, Shnum: 3, Shstrndx: 2,
	}
	copy(h.Ident[:], []byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), 1})
	sections := []elf.Section64{
		{},
		{Name: 1, Type: uint32(elf.SHT_PROGBITS), Off: headerSize, Size: uint64(len(content))},
		{Name: 10, Type: uint32(elf.SHT_STRTAB), Off: uint64(headerSize + len(content)), Size: uint64(len(names))},
	}
	var b bytes.Buffer
	for _, part := range []any{h, []byte(content), []byte(names), sections} {
		if err := binary.Write(&b, binary.LittleEndian, part); err != nil {
			panic(err)
		}
	}
	return b.Bytes()
}

func TestBuild(t *testing.T) {
	s := newStub(t, nil)
	var events []string
	digest, err := s.builder(Options{Packages: []string{"jq"}, Progress: func(e Event) {
		events = append(events, fmt.Sprintf("%d/%d %s %s", e.Index, e.Steps, e.Step, e.Detail))
	}}).build(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if events[0] != "1/7 check tools and space " || !slices.Contains(events, "2/7 install packages extracting archives") {
		t.Errorf("progress: %q", events)
	}
	img, err := s.store.Resolve(t.Context(), image.DefaultRef)
	if err != nil || img.Digest != digest {
		t.Fatalf("%v %v", img, err)
	}
	want := []string{"virtio_ring", "virtio", "virtio_mmio", "virtio_pci", "virtio_blk", "libcrc32c", "erofs", "overlay", "virtio_console", "fuse", "virtio_net", "virtio_rng"}
	for i, name := range want {
		want[i] = "/lib/modules/" + name + ".ko"
	}
	if diff := cmp.Diff(want, img.ModuleOrder); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"bash 1", "zsh 2"}, img.Packages); diff != "" {
		t.Error(diff)
	}
	if img.KernelVersion != "6.1.0-test" {
		t.Errorf("kernel %s", img.KernelVersion)
	}
	listing, err := os.ReadFile(img.Root)
	if err != nil || strings.Contains(string(listing), "99mmdebstrap") || strings.Contains(string(listing), ".gondolin") {
		t.Errorf("root holds what it should not (%v):\n%s", err, listing)
	}
	args, err := os.ReadFile(filepath.Join(s.dir, "tree/args"))
	if err != nil {
		t.Fatal(err)
	}
	for _, arg := range []string{
		`--aptopt=Acquire::http::Proxy "http://proxy.invalid:3128";`, `--aptopt=Acquire::Retries "3";`,
		"--include=bash,ca-certificates,coreutils,curl,git,iproute2,jq,openssl,procps,python3",
	} {
		if !slices.Contains(strings.Split(string(args), "\n"), arg) {
			t.Errorf("mmdebstrap was not given %s in\n%s", arg, args)
		}
	}
	if strings.Contains(string(args), "CompressionTypes") {
		t.Error("settings that are none of a build's business were passed on")
	}
	if again, err := s.builder(Options{Packages: []string{"jq"}}).build(t.Context()); err != nil || again != digest {
		t.Errorf("second build: %s, %v; want %s", again, err, digest)
	}
}

func TestBuildFailures(t *testing.T) {
	for name, tt := range map[string]struct {
		tools map[string]string
		spoil func(s *stub, b *builder)
		want  []string
	}{
		"no mmdebstrap": {tools: map[string]string{"mmdebstrap": "absent"}, want: []string{"mmdebstrap", "install the package mmdebstrap"}},
		"no mkfs.erofs": {tools: map[string]string{"mkfs.erofs": "absent"}, want: []string{"mkfs.erofs", "install the package erofs-utils"}},
		"no space before": {
			spoil: func(_ *stub, b *builder) { b.free = func(string) (uint64, error) { return 1 << 29, nil } },
			want:  []string{"1.5 GiB", "0.5 GiB are free", "/images"},
		},
		"no space in the middle": {
			tools: map[string]string{"mmdebstrap": `echo "dpkg: error: cannot copy: No space left on device" >&2; echo "E: run_chroot failed" >&2; exit 25`},
			want:  []string{"1.5 GiB", "/images", "cannot copy"},
		},
		"no space for the root image": {
			tools: map[string]string{"mkfs.erofs": `echo "<E> erofs: Could not format: [Error 28] No space left on device" >&2; exit 1`},
			want:  []string{"is full", "1.5 GiB"},
		},
		"unreachable": {
			tools: map[string]string{"mmdebstrap": `echo "Err:1 http://mirror.invalid/debian bookworm InRelease
  Could not resolve 'mirror.invalid'
E: Some index files failed to download.
E: apt-get update failed" >&2; exit 25`},
			want: []string{"a package source cannot be reached", "Could not resolve 'mirror.invalid'", "check that apt-get update works"},
		},
		"other failure": {
			tools: map[string]string{"mmdebstrap": `echo "I: fine"; echo "E: Unable to locate package nonesuch"; echo "E: apt-get failed"; exit 25`},
			want:  []string{"install packages", "Unable to locate package nonesuch"},
		},
		"silent failure": {tools: map[string]string{"mmdebstrap": `exit 3`}, want: []string{"mmdebstrap: exit status 3"}},
		"no kernel":      {tools: map[string]string{"dpkg-deb": `mkdir -p "$3/boot"`}, want: []string{"0 kernels"}},
		"not root":       {spoil: func(_ *stub, b *builder) { b.uid = 1000 }, want: []string{"takes root", "GONDOLIN_HOME", "chown"}},
		"not Debian": {
			spoil: func(s *stub, _ *builder) { s.write("etc/os-release", "ID=fedora\nPRETTY_NAME=Fedora\n", 0o644) },
			want:  []string{"Fedora", "has to be a Debian release"},
		},
		"no sources": {
			spoil: func(s *stub, _ *builder) {
				s.write("etc/apt/sources.list", "deb http://x.invalid/other bookworm stable\n", 0o644)
			},
			want: []string{"cannot find a package source of Debian bookworm", "sources.list"},
		},
		"bad package": {spoil: func(_ *stub, b *builder) { b.opts.Packages = []string{"--help"} }, want: []string{`"--help" is not the name`}},
		"bad ref":     {spoil: func(_ *stub, b *builder) { b.opts.Refs = []string{"../x"} }, want: []string{"cannot use image name"}},
		"broken module": {
			spoil: func(s *stub, _ *builder) { s.write("tree/lib/modules/6.1.0-test/kernel/fuse.ko", "junk", 0o644) },
			want:  []string{"cannot read kernel module", "fuse.ko"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStub(t, tt.tools)
			b := s.builder(Options{})
			if tt.spoil != nil {
				tt.spoil(s, b)
			}
			digest, err := b.build(t.Context())
			if err == nil {
				t.Fatalf("built %s", digest)
			}
			for _, part := range append(tt.want, "cannot build image") {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%q is not in: %v", part, err)
				}
			}
			if lines := strings.Count(err.Error(), "\n"); lines > 1 {
				t.Errorf("%d lines: %v", lines+1, err)
			}
			list, err := s.store.List(t.Context())
			if err != nil || len(list) != 0 {
				t.Errorf("left images %v %v", list, err)
			}
		})
	}
}

// TestBuildInterrupted cancels while mmdebstrap has a child of its own, and wants both gone and nothing left.
func TestBuildInterrupted(t *testing.T) {
	s := newStub(t, map[string]string{
		"mmdebstrap": `sleep 600 & echo $$ $! >TREE/pids; echo "I: started" >&2; wait`,
	})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	_, err := s.builder(Options{Progress: func(e Event) {
		if e.Detail == "started" {
			cancel()
		}
	}}).build(ctx)
	if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "interrupted") {
		t.Errorf("error %v", err)
	}
	var leader, child int
	data, err := os.ReadFile(filepath.Join(s.dir, "tree/pids"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscan(string(data), &leader, &child); err != nil {
		t.Fatal(err)
	}
	// The child's death is its new parent's business; it may stay a zombie for a moment.
	deadline := time.Now().Add(5 * time.Second)
	for _, pid := range []int{leader, child} {
		for alive(pid) {
			if time.Now().After(deadline) {
				t.Fatalf("process %d is still running", pid)
			}
			runtime.Gosched()
		}
	}
}

func alive(pid int) bool {
	if unix.Kill(pid, 0) != nil {
		return false
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(stat), ") Z ")
}

// TestDebianForReal makes the real image. It takes the network and half a minute.
func TestDebianForReal(t *testing.T) {
	testenv.NeedsEnv(t, "GONDOLIN_TEST_BUILD")
	testenv.NeedsRoot(t)
	testenv.NeedsTool(t, "mmdebstrap")
	testenv.NeedsTool(t, "mkfs.erofs")
	testenv.CheckLeaks(t)
	store, err := image.Open(filepath.Join(t.TempDir(), "images"))
	if err != nil {
		t.Fatal(err)
	}
	digest, err := Debian(t.Context(), store, Options{Progress: func(e Event) { t.Log(e) }})
	if err != nil {
		t.Fatal(err)
	}
	again, err := Debian(t.Context(), store, Options{})
	if err != nil || again != digest {
		t.Errorf("the second build is %s, not %s: %v", again, digest, err)
	}
}
