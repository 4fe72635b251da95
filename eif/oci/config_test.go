package oci

import (
	"archive/tar"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/require"

	"github.com/nesim/nesim/eif/pack"
)

// saveConfig writes an image without layers, as docker save does, with a configuration as it lies there.
func saveConfig(t testing.TB, config string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.tar")
	require.NoError(t, os.WriteFile(path, tarOf(t, regular("manifest.json", `[{"Config":"c","RepoTags":null,"Layers":[]}]`),
		regular("c", `{"architecture":"amd64","os":"linux","rootfs":{"type":"layers"},"config":`+config+`}`)), 0o600))
	return path
}

// What nitro-cli makes of a configuration is by its enclave_build/src/docker.rs (v1.5.0): extract_image takes CMD, or
// ENTRYPOINT where there is no CMD, write_config writes one a line, and nothing else is looked at.
func TestAConfigurationMeansWhatItMeansToNitroCLI(t *testing.T) {
	for config, want := range map[string]struct {
		command, joined, env []string
		notes                int
	}{
		`{"Cmd":["/app","-v"]}`:                                      {[]string{"/app", "-v"}, []string{"/app", "-v"}, nil, 0},
		`{"Cmd":["/app"],"Entrypoint":null,"Env":null}`:              {[]string{"/app"}, []string{"/app"}, nil, 0},
		`{"Cmd":null,"Entrypoint":["/app"],"Env":[]}`:                {[]string{"/app"}, []string{"/app"}, nil, 0},
		`{"Cmd":[],"Entrypoint":["/app","x"]}`:                       {[]string{"/app", "x"}, []string{"/app", "x"}, nil, 0},
		`{"Entrypoint":["/app"],"Cmd":["-v"]}`:                       {[]string{"-v"}, []string{"/app", "-v"}, nil, 1},
		`{"Entrypoint":[],"Cmd":["a"]}`:                              {[]string{"a"}, []string{"a"}, nil, 0},
		`{"Cmd":["/bin/sh","-c","exec a $B"],"ArgsEscaped":true}`:    {[]string{"/bin/sh", "-c", "exec a $B"}, []string{"/bin/sh", "-c", "exec a $B"}, nil, 0},
		`{"Cmd":"/app","Entrypoint":"/e"}`:                           {[]string{"/app"}, []string{"/e", "/app"}, nil, 1},
		`{"Cmd":["sh","-c","a\nb\n"]}`:                               {[]string{"sh", "-c", "a", "b", ""}, []string{"sh", "-c", "a", "b", ""}, nil, 1},
		`{"Cmd":["a",""],"Env":["A=","B=x=y","A=2","C","D=1\nE=2"]}`: {[]string{"a", ""}, []string{"a", ""}, []string{"A=", "B=x=y", "A=2", "C", "D=1", "E=2"}, 1},
		`{"Cmd":["a"],"WorkingDir":"","User":""}`:                    {[]string{"a"}, []string{"a"}, nil, 0},
		`{"Cmd":["a"],"WorkingDir":"/","User":"0:0"}`:                {[]string{"a"}, []string{"a"}, nil, 0},
		`{"Cmd":["a"],"WorkingDir":"srv/x","User":"65532"}`:          {[]string{"a"}, []string{"a"}, nil, 2},
		`{"Cmd":["a"],"User":"nobody","Shell":["/bin/bash"],"Healthcheck":{"Test":["NONE"]},"OnBuild":["RUN x"]}`: {
			[]string{"a"}, []string{"a"}, nil, 1},
	} {
		path := saveConfig(t, config)
		var notes []string
		image, err := Open(t.Context(), path, Options{SpoolDir: t.TempDir(), Note: func(line string) { notes = append(notes, line) }})
		require.NoError(t, err, config)
		app, err := image.Application(t.Context())
		require.NoError(t, err, config)
		require.Equal(t, want.command, app.Command, config)
		require.Equal(t, want.env, app.Env, config)
		require.Contains(t, []string{"", "/"}, app.WorkDir, config)
		require.Nil(t, app.User, config)
		require.Len(t, notes, want.notes, config)
		require.NoError(t, image.Close())

		image, err = Open(t.Context(), path, Options{SpoolDir: t.TempDir(), Honor: Honor{Entrypoint: true}})
		require.NoError(t, err)
		app, err = image.Application(t.Context())
		require.NoError(t, err)
		require.Equal(t, want.joined, app.Command, config)
		require.NoError(t, image.Close())
	}
	require.Contains(t, refused(t, saveConfig(t, `{"Cmd":[],"Entrypoint":null}`)), "it names no command to run")
	require.Contains(t, refused(t, saveConfig(t, `{"Cmd":{"a":1}}`)), "its configuration cannot be read")
}

func TestWhatIsIgnoredIsToldWithTheFlagThatTakesIt(t *testing.T) {
	var notes []string
	image, err := Open(t.Context(), saveConfig(t, `{"Entrypoint":["/e"],"Cmd":["/c"],"WorkingDir":"/srv","User":"web"}`),
		Options{SpoolDir: t.TempDir(), Note: func(line string) { notes = append(notes, line) }})
	require.NoError(t, err)
	defer image.Close()
	app, err := image.Application(t.Context())
	require.NoError(t, err)
	require.Equal(t, []string{
		`ENTRYPOINT "/e" is ignored, as nitro-cli does: the enclave runs CMD alone, "/c" (--honor-entrypoint)`,
		`USER "web" is ignored, as nitro-cli does: the enclave runs as root (--honor-user)`,
		`WORKDIR "/srv" is ignored, as nitro-cli does: the enclave starts in / (--honor-workdir)`,
	}, notes)
	require.Equal(t, "/", contents(t, app.Files)["srv"], "an engine makes it nevertheless")
}

// The list was measured: what AWS's linuxkit (1.5.2 with the patches of aws-nitro-enclaves-sdk-bootstrap) makes of such
// an image has these names and kinds, but for the hard link, which it turns into a symbolic one.
func TestTheRootDirectoryIsThatOfNitroCLI(t *testing.T) {
	image, err := Open(t.Context(), save(t, newImage(t, v1.Config{Cmd: []string{"/app"}}, tarOf(t,
		dir("etc/"), regular("etc/hosts", "1.2.3.4 own\n"), regular("etc/hostname", "name\n"), regular("Dockerfile", "FROM x\n"),
		regular(".dockerenv", ""), regular("app", "x"), hardLink("hard", "app"), symlink("tmp", "nowhere/tmp"), regular("run", "a file"),
		tar.Header{Typeflag: tar.TypeChar, Name: "dev/console", Mode: 0o600, Devmajor: 5, Devminor: 1},
	))), Options{SpoolDir: t.TempDir()})
	require.NoError(t, err)
	defer image.Close()
	app, err := image.Application(t.Context())
	require.NoError(t, err)
	require.Equal(t, map[string]string{
		"app": "x", "dev": "/", "dev/pts": "/", "dev/shm": "/", "etc": "/", "hard": "= app", "proc": "/", "run": "a file", "sys": "/",
		"etc/hosts": "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n",
		"etc/mtab":  "-> /proc/mounts", "etc/resolv.conf": "-> /run/resolvconf/resolv.conf", "tmp": "-> nowhere/tmp",
	}, contents(t, app.Files))

	odd := newImage(t, v1.Config{Cmd: []string{"/app"}}, tarOf(t, regular("etc", "a file"), symlink("dev", "etc")))
	_, files := open(t, save(t, odd))
	require.Equal(t, map[string]string{"etc": "a file", "dev": "-> etc", "proc": "/", "sys": "/"}, contents(t, files.Files))
}

// FuzzConfig reads an arbitrary configuration of an image with the accounts of FuzzAccounts' kind.
func FuzzConfig(f *testing.F) {
	f.Add([]byte(`{"architecture":"amd64","config":{"Cmd":["/app"],"Env":["A=1"],"User":"web","WorkingDir":"/srv"}}`))
	f.Add([]byte(`{"config":{"Cmd":"/app","Entrypoint":"/e"},"rootfs":{"diff_ids":[]}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		i := &Image{options: Options{Note: func(string) {}, Progress: func(int64, int64) {}, Honor: Honor{User: true, WorkDir: true}}, spool: &spool{dir: t.TempDir()}}
		defer i.Close()
		if i.setConfig(text) != nil || i.check() != nil || i.setLayers(nil) != nil {
			return
		}
		require.True(t, json.Valid(i.Inspect), "%s", i.Inspect)
		if app, err := i.Application(t.Context()); err == nil {
			require.NotEmpty(t, app.Command)
			for _, line := range append(app.Command, app.Env...) {
				require.NotContains(t, line, "\n")
			}
		}
	})
}

// FuzzAccounts looks a user up in arbitrary accounts.
func FuzzAccounts(f *testing.F) {
	f.Add("web:audio", "web:x:1000:100::/home/web:/bin/sh\n", "audio:x:29:web\n")
	f.Add("1000", "root:x:0:0:", ":::")
	f.Fuzz(func(t *testing.T, user, passwd, group string) {
		tr := newTree()
		require.NoError(t, tr.apply(t.Context(), []item{{name: "etc/passwd", file: textFile(passwd)}, {name: "etc/group", file: textFile(group)}}))
		var app pack.Application
		if tr.setUser(&app, user) != nil || app.User == nil {
			return
		}
		require.Len(t, app.Env, 1, "HOME")
		require.NotZero(t, fmt.Sprint(app.User.UID))
	})
}
