package vfstest

import (
	"time"

	"gondolin/vfs"
)

func testChmod(e *env) {
	e.put("f", "")
	e.mkdir("d")
	for _, name := range []string{"f", "d"} {
		kind := e.stat(name).Mode.Type()
		for _, mode := range []vfs.Mode{0, 0o777, 0o755, 0o444, 0o200, 0o123, 0o600} {
			e.ok(e.fs.SetAttr(name, vfs.SetAttr{Mask: vfs.SetMode, Mode: mode}))
			e.check(e.stat(name).Mode == kind|mode, "mode of %s is %o, want %o", name, e.stat(name).Mode, mode)
		}
	}
	f := e.open("f", vfs.Write)
	defer f.Close()
	e.ok(f.SetAttr(vfs.SetAttr{Mask: vfs.SetMode, Mode: 0o751}))
	e.check(e.stat("f").Mode == vfs.ModeRegular|0o751, "mode %o after fchmod", e.stat("f").Mode)
	for _, bit := range []vfs.Mode{vfs.ModeSetUID, vfs.ModeSetGID, vfs.ModeSticky} {
		err := e.fs.SetAttr("d", vfs.SetAttr{Mask: vfs.SetMode, Mode: bit | 0o755})
		if e.opts.NoSpecialBits {
			e.want(err, vfs.EPERM)
			e.check(e.stat("d").Mode&vfs.ModeSpecial == 0, "special bits reached the provider: %o", e.stat("d").Mode)
			continue
		}
		e.ok(err)
		e.check(e.stat("d").Mode == vfs.ModeDir|bit|0o755, "mode %o, want %o", e.stat("d").Mode, bit|0o755)
	}
}

func testChown(e *env) {
	e.put("f", "")
	a := e.stat("f")
	e.ok(e.fs.SetAttr("f", vfs.SetAttr{Mask: vfs.SetUID | vfs.SetGID, UID: a.UID, GID: a.GID}))
	err := e.fs.SetAttr("f", vfs.SetAttr{Mask: vfs.SetUID | vfs.SetGID, UID: 1234, GID: 5678})
	b := e.stat("f")
	if e.opts.FixedOwner {
		e.want(err, vfs.EPERM)
		e.check(b.UID == a.UID && b.GID == a.GID, "owner changed to %d:%d", b.UID, b.GID)
		return
	}
	e.ok(err)
	e.check(b.UID == 1234 && b.GID == 5678, "owner %d:%d", b.UID, b.GID)
	e.ok(e.fs.SetAttr("f", vfs.SetAttr{Mask: vfs.SetGID, GID: 9}))
	e.check(e.stat("f").UID == 1234 && e.stat("f").GID == 9, "owner %d:%d", e.stat("f").UID, e.stat("f").GID)
}

func testTimes(e *env) {
	e.put("f", "x")
	e.mkdir("d")
	at, mt := time.Unix(1_000_000_007, 123_456_789), time.Unix(1_700_000_001, 987_654_321)
	for _, name := range []string{"f", "d"} {
		e.ok(e.fs.SetAttr(name, vfs.SetAttr{Mask: vfs.SetAtime | vfs.SetMtime, Atime: at, Mtime: mt}))
		a := e.stat(name)
		e.check(a.Atime.Equal(at) && a.Mtime.Equal(mt), "times of %s: %v %v", name, a.Atime, a.Mtime)
	}
	before := time.Unix(-5, 250_000_000) // before 1970
	e.ok(e.fs.SetAttr("f", vfs.SetAttr{Mask: vfs.SetMtime, Mtime: before}))
	a := e.stat("f")
	e.check(a.Mtime.Equal(before), "mtime %v, want %v", a.Mtime, before)
	e.check(a.Atime.Equal(at), "atime changed to %v", a.Atime)
	f := e.open("f", vfs.Write)
	defer f.Close()
	e.ok(f.SetAttr(vfs.SetAttr{Mask: vfs.SetMtime, Mtime: mt}))
	e.check(e.stat("f").Mtime.Equal(mt), "mtime %v after futimens", e.stat("f").Mtime)
}

func testTimesOfLink(e *env) {
	if e.opts.NoLinkTimes {
		e.Skip("the provider cannot set times of links")
	}
	e.put("f", "")
	old := e.stat("f").Mtime
	e.ok(e.symlink("f", "l"))
	mt := time.Unix(1_234_567_890, 5)
	e.ok(e.fs.SetAttr("l", vfs.SetAttr{Mask: vfs.SetMtime, Mtime: mt}))
	e.check(e.stat("l").Mtime.Equal(mt), "mtime of the link %v", e.stat("l").Mtime)
	e.check(e.stat("f").Mtime.Equal(old), "the link was followed: %v", e.stat("f").Mtime)
}

func testTimesAdvance(e *env) {
	past := time.Unix(1_000_000_000, 0)
	set := vfs.SetAttr{Mask: vfs.SetAtime | vfs.SetMtime, Atime: past, Mtime: past}
	e.put("f", "x")
	e.ok(e.fs.SetAttr("f", set))
	e.put("f", "y")
	e.check(e.stat("f").Mtime.After(past), "writing left mtime at %v", e.stat("f").Mtime)
	e.mkdir("d")
	e.ok(e.fs.SetAttr("d", set))
	e.put("d/x", "")
	e.check(e.stat("d").Mtime.After(past), "creating left the directory's mtime at %v", e.stat("d").Mtime)
	e.ok(e.fs.SetAttr("d", set))
	e.ok(e.fs.Unlink("d/x"))
	e.check(e.stat("d").Mtime.After(past), "unlinking left the directory's mtime at %v", e.stat("d").Mtime)
	e.check(e.stat("f").Ctime.After(past), "ctime %v", e.stat("f").Ctime)
}
