package main

import (
	"archive/tar"
	"bytes"
	"debug/elf"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/stretchr/testify/require"

	"github.com/nesim/nesim/eif"
	"github.com/nesim/nesim/eif/inspect"
)

// imageFile is a file of a container image, or a symbolic link.
type imageFile struct {
	name string
	mode int64
	text string
	link string
}

// tarOf writes a tar archive.
func tarOf(t testing.TB, w io.Writer, files ...imageFile) {
	t.Helper()
	archive := tar.NewWriter(w)
	for _, f := range files {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: f.name, Mode: f.mode, Size: int64(len(f.text))}
		if f.link != "" {
			h.Typeflag, h.Linkname = tar.TypeSymlink, f.link
		}
		require.NoError(t, archive.WriteHeader(h))
		_, err := io.WriteString(archive, f.text)
		require.NoError(t, err)
	}
	require.NoError(t, archive.Close())
}

// containerImage makes an image of one layer.
func containerImage(t testing.TB, config v1.Config, files ...imageFile) v1.Image {
	t.Helper()
	var b bytes.Buffer
	tarOf(t, &b, files...)
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil })
	require.NoError(t, err)
	image, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{Architecture: "amd64", OS: "linux", Config: config})
	require.NoError(t, err)
	image, err = mutate.AppendLayers(image, layer)
	require.NoError(t, err)
	return image
}

// saved writes an image as an archive.
func saved(t testing.TB, image v1.Image) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "app.tar")
	tag, err := name.NewTag("example.com/app:1")
	require.NoError(t, err)
	require.NoError(t, tarball.WriteToFile(path, tag, image))
	return path
}

// withoutEngine makes sure that no container engine of this machine's is asked.
func withoutEngine(t testing.TB) {
	t.Setenv("DOCKER_HOST", "unix://"+filepath.Join(t.TempDir(), "none.sock"))
	t.Setenv("DOCKER_CONFIG", t.TempDir())
}

// staticProgram returns a program that the kernel would start, of two headers and no code.
func staticProgram(t testing.TB) string {
	t.Helper()
	h := elf.Header64{Type: uint16(elf.ET_EXEC), Machine: uint16(elf.EM_X86_64), Version: 1, Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: 1}
	copy(h.Ident[:], elf.ELFMAG+"\x02\x01\x01")
	program, err := binary.Append(nil, binary.LittleEndian, h)
	require.NoError(t, err)
	return string(program) + string(make([]byte, 56))
}

// factsProgram prints what it finds itself started with, and whether it may use an enclave's devices.
const factsProgram = `package main

import (
	"fmt"
	"os"
	"time"
)

func main() {
	dir, _ := os.Getwd()
	groups, _ := os.Getgroups()
	out, err := os.OpenFile("/dev/stdout", os.O_WRONLY, 0)
	if err != nil {
		fmt.Println(err)
	}
	for _, device := range []string{"/dev/vsock", "/dev/nsm"} {
		f, err := os.OpenFile(device, os.O_RDWR, 0)
		fmt.Fprintln(out, "device", device, err)
		f.Close()
	}
	hosts, err := os.ReadFile("/etc/hosts")
	fmt.Fprintf(out, "hosts: %q %v\n", hosts, err)
	fmt.Fprintf(out, "facts: %q in %s as %d:%d of %v with %q\n", os.Args, dir, os.Getuid(), os.Getgid(), groups, os.Environ())
	time.Sleep(time.Hour)
}
`

func TestAnEnclaveStartsAsItsContainerImageSays(t *testing.T) {
	withoutEngine(t)
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "facts.go"), []byte(factsProgram), 0o600))
	compile := exec.Command("go", "build", "-ldflags=-s -w", "-o", dir+"/facts", dir+"/facts.go")
	compile.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64", "GOFLAGS=")
	out, err := compile.CombinedOutput()
	require.NoError(t, err, "%s", out)
	program, err := os.ReadFile(dir + "/facts")
	require.NoError(t, err)
	archive := saved(t, containerImage(t, v1.Config{
		Entrypoint: []string{"/opt/bin/facts", "a b"}, Cmd: []string{"/opt/bin/facts", "-v"}, Env: []string{"PATH=/opt/bin", "GREETING=hi there"},
		WorkingDir: "/work/here", User: "web",
	},
		imageFile{name: "opt/bin/facts", mode: 0o755, text: string(program)},
		imageFile{name: "work", link: "srv", mode: 0o777},
		imageFile{name: "tmp", link: "nowhere/tmp", mode: 0o777}, // init would mount on nothing
		imageFile{name: "run", mode: 0o644, text: "a file"},
		imageFile{name: "srv/data", mode: 0o644},
		imageFile{name: "etc/passwd", mode: 0o644, text: "web:x:1000:100::/home/web:/bin/sh\n"},
		imageFile{name: "etc/group", mode: 0o644, text: "users:x:100:\naudio:x:29:web\n"},
	))

	u := newUser(t)
	for name, c := range map[string]struct {
		flags []string
		want  string
	}{
		"nitro": {nil, `facts: ["/opt/bin/facts" "-v"] in / as 0:0 of [] with ["PATH=/opt/bin" "GREETING=hi there"]`},
		"engine": {[]string{"--honor-entrypoint", "--honor-workdir", "--honor-user"},
			`facts: ["/opt/bin/facts" "a b" "/opt/bin/facts" "-v"] in /srv/here as 1000:100 of [29] with ["PATH=/opt/bin" "GREETING=hi there" "HOME=/home/web"]`},
	} {
		path := filepath.Join(dir, name+".eif")
		u.must(append([]string{"build-enclave", "--docker-uri", archive + ":example.com/app:1", "--output-file", path}, c.flags...)...)
		u.must("run-enclave", "--eif-path", path, "--cpu-count", "2", "--memory", "256", "--debug-mode")
		text := ""
		require.Eventually(t, func() bool {
			text = u.must("console", "--enclave-name", name, "--disconnect-timeout", "3")
			return strings.Contains(text, "facts: ")
		}, limit, time.Second)
		require.Contains(t, text, c.want)
		require.Contains(t, text, "device /dev/vsock <nil>")
		require.Contains(t, text, "device /dev/nsm <nil>")
		require.Contains(t, text, `hosts: "127.0.0.1 localhost\n`)
		u.must("terminate-enclave", "--enclave-name", name)
	}
}

func TestAnImageIsBuiltFromARegistryWithItsNameAndVersion(t *testing.T) {
	withoutEngine(t)
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer server.Close()
	image := containerImage(t, v1.Config{Cmd: []string{"/app"}, Labels: map[string]string{"team": "web"}}, imageFile{name: "app", mode: 0o755, text: staticProgram(t)})
	ref, err := name.NewTag(strings.TrimPrefix(server.URL, "http://") + "/team/web:1")
	require.NoError(t, err)
	require.NoError(t, remote.Write(ref, image))

	u := newUser(t)
	path, again := filepath.Join(t.TempDir(), "web.eif"), filepath.Join(t.TempDir(), "again.eif")
	var measured built
	out, stderr, err := u.run("", "build-enclave", "--docker-uri", ref.String(), "--output-file", path)
	require.NoError(t, err, stderr)
	require.NoError(t, json.Unmarshal([]byte(out), &measured))
	require.NotContains(t, stderr, "\r", "progress is for terminals")
	require.Contains(t, stderr, "Start building the Enclave Image...\nEnclave Image successfully created.\n")

	u.must("build-enclave", "--image", ref.String(), "--output-file", again)
	require.Equal(t, readFile(t, path), readFile(t, again), "the same image gives the same file")

	var described eif.Description
	require.NoError(t, json.Unmarshal([]byte(u.must("describe-eif", "--eif-path", path)), &described))
	require.Equal(t, measured.Measurements, described.Measurements)
	require.Equal(t, ref.Context().String(), *described.ImageName)
	id, err := image.ConfigName()
	require.NoError(t, err)
	require.Equal(t, id.Hex, *described.ImageVersion)
	require.Equal(t, "Linux", described.Metadata.OperatingSystem)
	info := described.Metadata.DockerInfo.(map[string]any)
	require.Equal(t, id.String(), info["Id"])
	require.Equal(t, "web", info["Config"].(map[string]any)["Labels"].(map[string]any)["team"])
}

func readFile(t testing.TB, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	return data
}

func TestBlobsOfNitroCLITakeThePlaceOfNesimsOwn(t *testing.T) {
	u := newUser(t)
	_ = u.hello()
	content := u.inspect(u.hello())
	dir, rootfs, path := t.TempDir(), helloFolder(t, t.TempDir()), filepath.Join(t.TempDir(), "blobs.eif")
	u.must("eif", "extract", u.hello(), "--output", dir+"/parts")
	require.NoError(t, os.Rename(dir+"/parts/kernel", dir+"/bzImage"))
	for name, text := range map[string]string{
		"init": staticProgram(t), "cmdline": "reboot=k quiet\n", "linuxkit": "",
		"bzImage.config": "#\n# Automatically generated file; DO NOT EDIT.\n# Linux/x86_64 4.14.256-209.484 Kernel Configuration\n",
	} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	u.must("build-enclave", "--rootfs", rootfs, "--output-file", path, "--blobs-dir", dir)
	got := u.inspect(path)
	require.Equal(t, "reboot=k quiet", got.Cmdline)
	require.Equal(t, content.Kernel, got.Kernel)
	require.Contains(t, string(got.Metadata), `"KernelVersion": "4.14.256"`)

	t.Setenv(blobsVariable, dir)
	byVariable := filepath.Join(t.TempDir(), "variable.eif")
	u.must("build-enclave", "--rootfs", rootfs, "--output-file", byVariable)
	require.Equal(t, readFile(t, path), readFile(t, byVariable))

	var difference inspect.Difference
	require.NoError(t, json.Unmarshal([]byte(u.must("eif", "diff", u.hello(), path)), &difference))
	for _, pcr := range difference.PCRs {
		require.NotEqual(t, "PCR2", pcr.PCR, "the application is the same")
	}
	require.Len(t, difference.PCRs, 2)
	require.Contains(t, u.refused("eif", "diff", "--exit-code", u.hello(), path), "the images differ")
}

// inspect runs eif inspect, whose files' modes do not read back.
func (u *user) inspect(path string) (content struct {
	Kernel   inspect.Kernel
	Cmdline  string
	Metadata json.RawMessage
}) {
	u.Helper()
	require.NoError(u, json.Unmarshal([]byte(u.must("eif", "inspect", path)), &content))
	return content
}

func TestWhatCannotBeBuiltIsToldInOneLine(t *testing.T) {
	withoutEngine(t)
	u := newUser(t)
	dir := t.TempDir()
	arm, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{Architecture: "arm64", OS: "linux"})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(dir+"/text", []byte("text"), 0o600))
	require.NoError(t, os.WriteFile(dir+"/cmd", []byte("/app"), 0o600))
	output := []string{"build-enclave", "--output-file", dir + "/out.eif"}
	for want, args := range map[string][]string{
		"[E01] --docker-uri or --image or --rootfs is missing":   nil,
		"[E02] --docker-uri and --rootfs exclude each other":     {"--docker-uri", "x", "--rootfs", dir},
		"[E50] image " + dir + "/none.tar: there is no such f":   {"--docker-uri", dir + "/none.tar"},
		"it is for linux/arm64, enclaves here are linux/amd64":   {"--docker-uri", saved(t, arm)},
		"[E49] --docker-dir " + dir + "/none: no such folder":    {"--docker-uri", "x", "--docker-dir", dir + "/none"},
		"[E19] blobs folder: " + dir:                             {"--rootfs", dir, "--blobs-dir", dir},
		"[E48] " + dir + "/text: the kernel is neither a bzIma":  {"--rootfs", dir, "--kernel", dir + "/text"},
		"[E48] --modules needs --kernel: give both":              {"--rootfs", dir, "--modules", dir},
		"[E48] init: " + dir + "/none: no such file or direct":   {"--rootfs", dir, "--init", dir + "/none"},
		"[E48] init " + dir + "/text: it is neither an ELF pro":  {"--rootfs", dir, "--init", dir + "/text"},
		"[E48] workload /app: the image has no such file: chec":  {"--rootfs", dir},
		"[E48] workload /app: it is neither an ELF program nor":  {"--docker-uri", saved(t, containerImage(t, v1.Config{Cmd: []string{"/app"}}, imageFile{name: "app", mode: 0o755, text: "x"}))},
		"[E50] image " + dir + "/text: it is neither an image a": {"--docker-uri", dir + "/text"},
		"[E02] --honor-user and --rootfs exclude each other":     {"--rootfs", dir, "--honor-user"},
		"[E48] metadata: " + dir + "/none: no such file":         {"--rootfs", dir, "--metadata", dir + "/none"},
	} {
		require.Contains(t, u.refused(append(output, args...)...), want)
	}
	require.NoFileExists(t, dir+"/out.eif")
}

func TestImageNamesAreCutAsNitroCLIDoes(t *testing.T) {
	for image, want := range map[string]string{
		"hello": "hello", "hello:1": "hello", "host:5000/team/hello": "host:5000/team/hello", "host:5000/hello:1": "host:5000/hello",
		"hello@sha256:00": "hello", "hello:1@sha256:00": "hello",
	} {
		require.Equal(t, want, imageName(image, "registry"))
	}
	require.Equal(t, "hello", imageName("/tmp/hello.tar.gz", "archive"))
	require.Equal(t, "hello", imageName("./hello", "OCI layout"))
}

// BenchmarkBuildEnclave compares building an enclave of a container image of 300 MiB with tar and sha384sum of the same
// files, in turn; ratio is the best time of the one over the best of the other two. saved is an archive as docker save
// writes it; compressed is one with compressed layers, as from a registry.
func BenchmarkBuildEnclave(b *testing.B) {
	const size, count = 300 << 20, 600
	withoutEngine(b)
	u := newUser(b)
	dir := b.TempDir()
	random := rand.NewChaCha8([32]byte{})
	var files []imageFile
	for n := range count {
		text := make([]byte, size/count)
		random.Read(text)
		copy(text[len(text)/2:], text) // libraries and programs shrink by about this much
		files = append(files, imageFile{name: fmt.Sprintf("lib/%03d", n), mode: 0o644, text: string(text)})
		require.NoError(b, os.MkdirAll(dir+"/root/lib", 0o755))
		require.NoError(b, os.WriteFile(dir+"/root/"+files[n].name, text, 0o600))
	}
	files = append(files, imageFile{name: "lib/app", mode: 0o755, text: staticProgram(b)})
	var layer bytes.Buffer
	tarOf(b, &layer, files...)
	config := v1.Config{Cmd: []string{"/lib/app"}}
	for name, archive := range map[string]string{
		"saved":      dockerSaved(b, config, layer.Bytes()),
		"compressed": saved(b, containerImage(b, config, files...)),
	} {
		b.Run(name, func(b *testing.B) {
			build, plain := time.Hour, time.Hour
			for b.Loop() {
				start := time.Now()
				u.must("build-enclave", "--docker-uri", archive, "--output-file", dir+"/out.eif")
				build = min(build, time.Since(start))

				start = time.Now()
				require.NoError(b, exec.Command("tar", "-cf", dir+"/plain.tar", "-C", dir, "root").Run())
				require.NoError(b, exec.Command("sha384sum", dir+"/plain.tar").Run())
				plain = min(plain, time.Since(start))
			}
			b.ReportMetric(build.Seconds(), "build-s")
			b.ReportMetric(plain.Seconds(), "tar+sha384sum-s")
			b.ReportMetric(build.Seconds()/plain.Seconds(), "ratio")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// dockerSaved writes an image as docker save does: the layer is not compressed.
func dockerSaved(t testing.TB, config v1.Config, layer []byte) string {
	t.Helper()
	id, _, err := v1.SHA256(bytes.NewReader(layer))
	require.NoError(t, err)
	configuration, err := json.Marshal(v1.ConfigFile{Architecture: "amd64", OS: "linux", Config: config, RootFS: v1.RootFS{Type: "layers", DiffIDs: []v1.Hash{id}}})
	require.NoError(t, err)
	manifest, err := json.Marshal(tarball.Manifest{{Config: "config.json", Layers: []string{"layer.tar"}}})
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "saved.tar")
	f, err := os.Create(path)
	require.NoError(t, err)
	defer f.Close()
	tarOf(t, f, imageFile{name: "layer.tar", text: string(layer)}, imageFile{name: "config.json", text: string(configuration)}, imageFile{name: "manifest.json", text: string(manifest)})
	return path
}
