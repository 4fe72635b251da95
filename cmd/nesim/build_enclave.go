package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/nesim/nesim/eif"
	"github.com/nesim/nesim/eif/inspect"
	"github.com/nesim/nesim/eif/oci"
	"github.com/nesim/nesim/eif/pack"
	"github.com/nesim/nesim/qemu/setup"
	"github.com/nesim/nesim/sim/errcode"
)

// built is what nitro-cli's build-enclave prints.
type built struct {
	Measurements eif.Measurements `json:"Measurements"`
}

// blobsVariable names the folder of --blobs-dir, as for nitro-cli.
const blobsVariable = "NITRO_CLI_BLOBS"

func buildEnclave() *cobra.Command {
	var b builder
	cmd := &cobra.Command{
		Use:   "build-enclave (--docker-uri IMAGE | --rootfs DIR) --output-file FILE",
		Short: "Build an Enclave Image File from an image or a folder",
		Long: "Build an Enclave Image File from a container image or a folder, with a kernel and an init.\n\n" +
			"The image is in the local container engine (DOCKER_HOST, else Docker's socket) or in a registry, or it is a\n" +
			"file: a docker save or OCI archive, or an OCI layout folder. :TAG after the file chooses one of several\n" +
			"images. As with nitro-cli, the enclave runs the image's CMD, or its ENTRYPOINT if it has no CMD, with its\n" +
			"environment, as root and in /. The --honor flags apply more of the image's configuration.\n\n" +
			"The folder of --rootfs is the enclave's root directory, except for two files in it: cmd holds the arguments\n" +
			"of the workload, one per line, and env its environment, one KEY=VALUE per line.\n\n" +
			"A workload that can never run, for example because its dynamic linker is missing, is refused.\n\n" +
			"nesim supplies the kernel and the init. --blobs-dir, or NITRO_CLI_BLOBS, names a folder with other ones, in\n" +
			"the layout of nitro-cli's. The same input gives the same file, byte for byte; its build time is\n" +
			"SOURCE_DATE_EPOCH, else 1970.",
		Example: "  nesim build-enclave --docker-uri hello:latest --output-file hello.eif\n" +
			"  nesim build-enclave --docker-uri hello:latest --docker-dir ./hello --output-file hello.eif\n" +
			"  nesim build-enclave --docker-uri ./hello.tar --output-file hello.eif\n" +
			"  nesim build-enclave --docker-uri ./images.tar:hello:latest --output-file hello.eif",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			b.progress = newProgress(cmd.ErrOrStderr())
			defer b.progress.end()
			measurements, err := b.build(cmd.Context())
			if err != nil {
				return err
			}
			b.progress.say("Enclave Image successfully created.")
			return show(cmd, built{measurements}, func(p *printer) { p.measurements(measurements) })
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&b.image, "docker-uri", "", "container image: a name, or an archive or OCI layout folder, with :TAG to choose one of several images")
	flags.StringVar(&b.image, "image", "", "alias of --docker-uri")
	flags.StringVar(&b.dockerDir, "docker-dir", "", "folder with a Dockerfile to build first, tagged as --docker-uri")
	flags.BoolVar(&b.honor.Entrypoint, "honor-entrypoint", false, "run the image's ENTRYPOINT with its CMD as arguments, as a container engine does")
	flags.BoolVar(&b.honor.WorkDir, "honor-workdir", false, "start in the image's WORKDIR")
	flags.BoolVar(&b.honor.User, "honor-user", false, "run as the image's USER, with access to /dev/vsock and /dev/nsm")
	flags.StringVar(&b.rootfs, "rootfs", "", "folder with the root directory of the enclave")
	flags.StringVar(&b.spec.Output, "output-file", "", "Enclave Image File to write")
	flags.StringVar(&b.spec.Metadata.ImageName, "name", "", "image name in the metadata (default: that of the container image)")
	flags.StringVar(&b.spec.Metadata.ImageVersion, "version", "", "image version in the metadata (default: the digest of the container image)")
	flags.StringVar(&b.metadata, "metadata", "", "JSON file with custom metadata")
	flags.StringVar(&b.blobs, "blobs-dir", "", "folder with bzImage, bzImage.config, init, nsm.ko and cmdline (default: $"+blobsVariable+")")
	flags.StringVar(&b.spec.Kernel, "kernel", "", "kernel to use instead: a bzImage, or an ELF vmlinux with a PVH entry point")
	flags.StringVar(&b.kernelConfig, "kernel-config", "", "configuration of --kernel, for the metadata (default: the kernel's name with .config, if it exists)")
	flags.StringVar(&b.modules, "modules", "", "folder with the modules of --kernel and modules.dep (default: no modules)")
	flags.StringVar(&b.spec.Init, "init", "", "init to use instead, a static program")
	flags.StringVar(&b.spec.Cmdline, "cmdline", "", "kernel command line to use instead")
	b.keys.add(cmd)
	exactlyOne(cmd, "docker-uri", "image", "rootfs")
	atMostOne(cmd, "docker-dir", "rootfs")
	atMostOne(cmd, "modules", "blobs-dir")
	for _, name := range []string{"honor-entrypoint", "honor-workdir", "honor-user"} {
		atMostOne(cmd, name, "rootfs")
	}
	_ = cmd.MarkFlagRequired("output-file")
	for _, name := range []string{"docker-dir", "rootfs", "blobs-dir", "modules"} {
		_ = cmd.MarkFlagDirname(name)
	}
	return cmd
}

// builder is what the flags of build-enclave say.
type builder struct {
	image, dockerDir, rootfs               string
	blobs, modules, kernelConfig, metadata string
	honor                                  oci.Honor
	spec                                   pack.Spec
	keys                                   signingFlags
	progress                               *progress
}

// build builds the image, in the steps of nitro-cli.
func (b *builder) build(ctx context.Context) (m eif.Measurements, err error) {
	if err := b.platform(); err != nil {
		return m, errcode.Wrap(errcode.EIFBuilding, err)
	}
	if b.keys.given() {
		if b.spec.Signer, err = b.keys.signer(ctx, b.progress); err != nil {
			return m, err
		}
	}
	b.spec.Metadata.Build.BuildToolVersion = version()
	if b.metadata != "" {
		if err := b.spec.SetCustom(b.metadata); err != nil {
			return m, errcode.Wrap(errcode.EIFBuilding, err)
		}
	}
	if b.dockerDir != "" {
		if err := dockerBuild(ctx, b.image, b.dockerDir, b.progress); err != nil {
			return m, errcode.Wrap(errcode.DockerImageBuild, err)
		}
	}
	if b.rootfs != "" {
		if b.spec.Application, err = pack.FromFolder(ctx, b.rootfs); err != nil {
			return m, errcode.Wrap(errcode.EIFBuilding, err)
		}
	} else {
		image, err := b.openImage(ctx)
		if err != nil {
			return m, errcode.Wrap(errcode.DockerImagePull, err)
		}
		defer image.Close()
	}
	if app := b.spec.Application; b.spec.Init != "" && (app.User != nil || app.WorkDir != "" && app.WorkDir != "/") {
		b.note("the given init may not know of users and working directories: AWS's runs the workload as root in /")
	}
	if err := b.spec.Check(ctx, b.note); err != nil {
		return m, errcode.Wrap(errcode.EIFBuilding, err)
	}
	b.progress.say("Start building the Enclave Image...")
	total := b.spec.Application.Size()
	b.spec.Progress = func(done int64) { b.progress.show("packing", done, total) }
	m, err = pack.Build(ctx, b.spec)
	return m, errcode.Wrap(errcode.EIFBuilding, err)
}

// note prints what the user should know but is not an error.
func (b *builder) note(line string) { b.progress.say("note: " + line) }

// platform finds the kernel and what belongs to it.
func (b *builder) platform() error {
	if b.blobs == "" && b.spec.Kernel == "" && b.modules == "" {
		b.blobs = os.Getenv(blobsVariable)
	}
	switch {
	case b.blobs != "":
		if err := b.spec.UseBlobs(b.blobs); err != nil {
			return errcode.Wrap(errcode.FileOperationFailure, err)
		}
	case b.spec.Kernel != "":
		if err := b.loadModules(setup.Kernel{Image: b.spec.Kernel, Modules: b.modules}); err != nil {
			return err
		}
	case b.modules != "":
		return errors.New("--modules needs --kernel: give both")
	default:
		kernel, err := setup.FindKernel()
		if err != nil {
			return err
		}
		b.spec.Kernel, b.spec.Metadata.Build.KernelVersion = kernel.Image, kernel.Release
		if err := b.loadModules(kernel); err != nil {
			return err
		}
		if err := b.suitInit(kernel.Config); err != nil {
			return err
		}
	}
	if err := b.describeKernel(); err != nil {
		return err
	}
	return startable(b.spec.Kernel)
}

func (b *builder) loadModules(kernel setup.Kernel) (err error) {
	if b.spec.Modules, err = kernel.LoadOrder(pack.Modules...); err != nil {
		return err
	}
	b.spec.OnDemand, err = kernel.LoadOrder(setup.FeatureModules()...)
	return err
}

// describeKernel reads the kernel's configuration, where there is one beside it or named.
func (b *builder) describeKernel() error {
	config := b.kernelConfig
	if config == "" {
		config = b.spec.Kernel + ".config"
		if _, err := os.Stat(config); errors.Is(err, fs.ErrNotExist) {
			return nil
		}
	}
	if err := b.suitInit(config); err != nil {
		return err
	}
	return b.spec.DescribeKernel(config)
}

// suitInit makes the kernel suit an init that is not nesim's own.
func (b *builder) suitInit(config string) error {
	if b.spec.Init == "" || config == "" {
		return nil
	}
	word, err := b.spec.DisableCgroups(config)
	if word != "" {
		b.note(word + " was appended to the kernel's command line: inits like AWS's mount every controller as of cgroup version 1, and end where one is built for version 2 alone")
	}
	return err
}

// startable refuses a kernel that could not be started.
func startable(path string) error {
	f, size, err := openEIF(path)
	if err != nil {
		return fmt.Errorf("kernel: %w", err)
	}
	defer f.Close()
	if err := inspect.CheckKernel(inspect.IdentifyKernel(f, size), eif.ArchX86_64); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// openImage finds the container image and takes the application and its metadata from it.
func (b *builder) openImage(ctx context.Context) (*oci.Image, error) {
	image, err := oci.Open(ctx, b.image, oci.Options{
		Honor:    b.honor,
		Note:     b.note,
		Progress: func(done, total int64) { b.progress.show("reading the image", done, total) },
	})
	if err != nil {
		return nil, err
	}
	if image.Source == oci.LocalEngine {
		b.progress.say("Using the locally available Docker image...")
	}
	if b.spec.Application, err = image.Application(ctx); err != nil {
		image.Close()
		return nil, err
	}
	m := &b.spec.Metadata
	m.DockerInfo = image.Inspect
	if m.ImageName == "" {
		m.ImageName = imageName(cmp.Or(image.Path, b.image), image.Source)
	}
	if m.ImageVersion == "" {
		m.ImageVersion = image.ID.Hex
	}
	return image, nil
}

// imageName is the name that an image's metadata has: as nitro-cli's, without tag and digest; of a file, its own.
func imageName(image, source string) string {
	if source == oci.Archive || source == oci.Layout {
		name := filepath.Base(image)
		return strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(name, ".gz"), ".tgz"), ".tar")
	}
	name, _, _ := strings.Cut(image, "@")
	if colon := strings.LastIndexByte(name, ':'); colon > strings.LastIndexByte(name, '/') {
		name = name[:colon]
	}
	return name
}

// dockerBuild has docker build a folder's Dockerfile.
func dockerBuild(ctx context.Context, name, dir string, p *progress) error {
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return fmt.Errorf("--docker-dir %s: no such folder", dir)
	}
	cmd := exec.CommandContext(ctx, "docker", "build", "--tag", name, dir)
	cmd.Stdout, cmd.Stderr = p, p
	err := cmd.Run()
	if errors.Is(err, exec.ErrNotFound) {
		return errors.New("--docker-dir needs the docker program, which is not installed: install it, or build the image elsewhere and give its archive to --docker-uri")
	}
	if err != nil {
		return fmt.Errorf("docker build %s failed: %w", dir, err)
	}
	return nil
}
