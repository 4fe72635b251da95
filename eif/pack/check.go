package pack

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/nesim/nesim/internal/guestwire"
)

// Check refuses an image that can never run: its init or its workload is missing, no program, for another processor, or
// needs an interpreter that is missing. note is called with each reason that may keep it from running, here or on AWS.
// It reads a few bytes of the programs and builds nothing.
func (s Spec) Check(ctx context.Context, note func(line string)) error {
	app := s.Application
	for _, e := range app.Files {
		if covered(e) {
			note(fmt.Sprintf("/%s is a %s: it becomes a directory, as nitro-cli makes it, for init to mount on", e.Name, kind(e.Mode)))
		}
	}
	if s.Init != "" {
		program, err := s.otherInit()
		if err != nil {
			return err
		}
		if err := s.checkInit(ctx, program); err != nil {
			return fmt.Errorf("init %s: %w", s.Init, err)
		}
	}
	c := &checker{ctx: ctx, files: index(app.Files, ""), mounted: initMounts, dir: "/", user: app.User}
	if len(app.Command) == 0 || app.Command[0] == "" {
		return nil // Build says so
	}
	if app.WorkDir != "" && s.Init == "" {
		c.dir = app.WorkDir
	}
	if err := c.workload(app.Command[0], searchPaths(app.Env), s.Init == "", note); err != nil {
		return fmt.Errorf("workload %s: %w", app.Command[0], err)
	}
	return nil
}

// checkInit checks another init than nesim's own, which the kernel starts where both ramdisks have been unpacked.
func (s Spec) checkInit(ctx context.Context, program []byte) error {
	c := &checker{ctx: ctx, files: index(s.Application.Files, "rootfs/"), dir: "/"}
	c.files["init"] = file("init", 0o755, program)
	return c.program("/init", 0)
}

// initMounts are the directories that init mounts on before it starts the workload: of what the image has there nothing
// is left.
var initMounts = []string{"dev", "proc", "run", "sys", "tmp"}

// covered reports whether a file is where there must be a directory, which the ramdisk then gets in its place.
func covered(e Entry) bool {
	return slices.Contains(mountPoints, e.Name) && (!e.Mode.IsDir() || e.LinkTo != "")
}

// index returns entries by their names, below a prefix, with the directories that nobody listed.
func index(entries []Entry, prefix string) map[string]Entry {
	files := map[string]Entry{}
	for _, e := range entries {
		if covered(e) {
			e = directory(e.Name)
		}
		e.Name = prefix + e.Name
		if e.LinkTo != "" {
			e.LinkTo = prefix + e.LinkTo
		}
		files[e.Name] = e
		for dir := path.Dir(e.Name); dir != "."; dir = path.Dir(dir) {
			if _, ok := files[dir]; ok {
				break
			}
			files[dir] = directory(dir)
		}
	}
	return files
}

// searchPaths returns the directories of guestwire.SearchPath, and then those of the environment's PATH.
func searchPaths(env []string) [2][]string {
	dirs := [2][]string{strings.Split(guestwire.SearchPath, ":")}
	for _, v := range env {
		if own, ok := strings.CutPrefix(v, "PATH="); ok {
			dirs[1] = strings.Split(own, ":")
		}
	}
	return dirs
}

// checker looks for programs in a root directory, as the kernel would.
type checker struct {
	ctx     context.Context
	files   map[string]Entry
	mounted []string // directories at the top that are mounted over
	dir     string   // the working directory
	user    *User    // who runs the programs; nil for root
}

// What find finds out, beside a file.
var (
	errMissing = errors.New("the image has no such file")
	errMounted = errors.New("init mounts over that directory, and nothing that the image has there is left: put the program elsewhere")
)

// workload checks the workload as init looks for it. own reports that the init is nesim's, which looks into the
// environment's PATH where AWS's gives up.
func (c *checker) workload(name string, dirs [2][]string, own bool, note func(string)) error {
	if strings.Contains(name, "/") {
		err := c.program(name, 0)
		if err == errMissing { // the program, not its interpreter
			err = fmt.Errorf("%w: check the command, and that the program is copied into the image", err)
		}
		return err
	}
	for n, list := range dirs {
		if n == 1 && !own {
			break
		}
		for _, dir := range list {
			at := path.Join(dir, name)
			if !path.IsAbs(at) || !c.runs(at) {
				continue
			}
			if n == 1 {
				note(fmt.Sprintf("%s is found by the environment's PATH alone: AWS's init looks in %s only, so name it %s", name, guestwire.SearchPath, at))
			}
			return c.program(at, 0)
		}
	}
	looked := guestwire.SearchPath
	if own && len(dirs[1]) > 0 {
		looked += ":" + strings.Join(dirs[1], ":")
	}
	return fmt.Errorf("there is no such program in %.400s: give its path", looked)
}

// runs reports whether a path names a file that the user may run.
func (c *checker) runs(name string) bool {
	e, err := c.find(name)
	return err == nil && e.Mode.IsRegular() && c.user.mayRun(e)
}

// mayRun reports whether the user may run a file, by its permissions alone. Root may where anybody may.
func (u *User) mayRun(e Entry) bool {
	switch {
	case u == nil || u.UID == 0:
		return e.Mode&0o111 != 0
	case u.UID == e.UID:
		return e.Mode&0o100 != 0
	case u.GID == e.GID || slices.Contains(u.Groups, e.GID):
		return e.Mode&0o010 != 0
	}
	return e.Mode&0o001 != 0
}

// maxLinks is how many symbolic links in a row are followed (MAXSYMLINKS in linux/namei.h).
const maxLinks = 40

// find follows a path and the symbolic links on its way, none of which leaves the root directory.
func (c *checker) find(name string) (e Entry, err error) {
	if !path.IsAbs(name) {
		name = c.dir + "/" + name
	}
	todo, at, links := elements(name), []string{}, 0
	for len(todo) > 0 {
		element := todo[0]
		todo = todo[1:]
		if element == ".." {
			at = at[:max(len(at)-1, 0)]
			continue
		}
		if len(at) == 0 && slices.Contains(c.mounted, element) {
			return e, errMounted
		}
		here := append(slices.Clone(at), element)
		var ok bool
		e, ok = c.files[strings.Join(here, "/")]
		if ok && e.LinkTo != "" {
			e, ok = c.files[e.LinkTo]
		}
		switch {
		case !ok:
			return e, errMissing
		case e.Mode&fs.ModeSymlink != 0:
			if links++; links > maxLinks {
				return e, fmt.Errorf("it leads through more than %d symbolic links", maxLinks)
			}
			if path.IsAbs(e.Target) {
				at = at[:0]
			}
			todo = append(elements(e.Target), todo...)
		case e.Mode.IsDir():
			at = here
		case len(todo) > 0:
			return e, errMissing
		default:
			return e, nil
		}
	}
	return directory(strings.Join(at, "/")), nil
}

// elements splits a path, without what is empty or ".".
func elements(name string) []string {
	return slices.DeleteFunc(strings.Split(name, "/"), func(e string) bool { return e == "" || e == "." })
}

// maxInterpreters is how many interpreters of each other the kernel follows (exec_binprm in fs/exec.c).
const maxInterpreters = 5

// program checks that the kernel can start what a path names.
func (c *checker) program(name string, depth int) error {
	if err := c.ctx.Err(); err != nil {
		return err
	}
	e, err := c.find(name)
	switch {
	case err != nil:
		return err
	case !e.Mode.IsRegular():
		return fmt.Errorf("it is a %s, not a program", kind(e.Mode))
	case !c.user.mayRun(e):
		who := ""
		if c.user != nil {
			who = fmt.Sprintf(" for user %d", c.user.UID)
		}
		return fmt.Errorf("it is not executable%s: its mode is %04o; chmod 755 makes it so", who, e.Mode.Perm())
	case depth > maxInterpreters:
		return errors.New("its interpreters need interpreters without an end")
	}
	interpreter, err := interpreterOf(e)
	if err != nil || interpreter == "" {
		return err
	}
	if err := c.program(interpreter, depth+1); err != nil {
		return fmt.Errorf("its interpreter %.100q: %w%s", interpreter, err, remedy(interpreter, err))
	}
	return nil
}

// remedy says what to do about an interpreter that is missing.
func remedy(interpreter string, err error) string {
	switch {
	case !errors.Is(err, errMissing):
		return ""
	case strings.HasSuffix(interpreter, "\r"):
		return ": the script has DOS line ends, write it with UNIX ones"
	case strings.Contains(path.Base(interpreter), "ld-"):
		return ": link the program statically, or add the libraries that it was linked with"
	}
	return ": add it to the image"
}
