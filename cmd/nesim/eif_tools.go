package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/nesim/nesim/eif"
	"github.com/nesim/nesim/eif/inspect"
	"github.com/nesim/nesim/sim/errcode"
	"github.com/nesim/nesim/sim/vmm"
)

func eifCommand() *cobra.Command {
	cmd := group(&cobra.Command{
		Use:   "eif",
		Short: "Inspect, extract and compare Enclave Image Files",
	})
	cmd.AddCommand(eifInspect(), eifExtract(), eifDiff())
	return cmd
}

func eifInspect() *cobra.Command {
	return &cobra.Command{
		Use:   "inspect FILE",
		Short: "List the sections, the kernel and the files of an image",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			image, closeImage, err := openImage(args[0])
			if err != nil {
				return err
			}
			defer closeImage()
			content, err := inspect.Describe(cmd.Context(), image)
			if err != nil {
				return errcode.New(errcode.EIFParsing, "%s: %w", args[0], err)
			}
			kernel := image.Kernel()
			types, why := vmm.MachineTypes(cmd.Context(), kernel, kernel.Size())
			inspected := inspected{content, machine{types, why}}
			return show(cmd, inspected, func(p *printer) { printContent(p, inspected) })
		},
	}
}

// inspected is what is in an image, and the machine that it runs on.
type inspected struct {
	*inspect.Content
	Machine machine
}

func eifExtract() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "extract FILE --output DIR",
		Short: "Write the sections of an image to files",
		Long: "Write the sections of an image to files: kernel, cmdline, metadata.json, ramdisk-0.cpio and so on, and for a\n" +
			"signed image signature.cbor and certificate.pem. Existing files are not replaced.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			image, closeImage, err := openImage(args[0])
			if err != nil {
				return err
			}
			defer closeImage()
			names, err := inspect.Extract(cmd.Context(), image, dir)
			paths := []string{}
			for _, name := range names {
				paths = append(paths, filepath.Join(dir, name))
			}
			return errors.Join(errcode.Wrap(errcode.FileOperationFailure, err), showAlways(cmd, paths, func(p *printer) {
				for _, path := range paths {
					p.line(path)
				}
			}))
		},
	}
	cmd.Flags().StringVar(&dir, "output", "", "folder to write to; created if missing")
	_ = cmd.MarkFlagRequired("output")
	_ = cmd.MarkFlagDirname("output")
	return cmd
}

func eifDiff() *cobra.Command {
	var exit bool
	cmd := &cobra.Command{
		Use:   "diff FILE FILE",
		Short: "Compare two images: sections, files and PCRs",
		Args:  cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			difference, err := diffFiles(cmd.Context(), args[0], args[1])
			if err != nil {
				return err
			}
			err = show(cmd, difference, func(p *printer) { printDifference(p, difference) })
			if err == nil && exit && !difference.Same() {
				err = errors.New("the images differ")
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&exit, "exit-code", false, "exit with 1 if the images differ")
	return cmd
}

// openImage opens an image whose headers are right.
func openImage(path string) (image *eif.Image, closeImage func() error, err error) {
	f, size, err := openEIF(path)
	if err != nil {
		return nil, nil, err
	}
	if image, err = eif.Open(f, size); err != nil {
		f.Close()
		return nil, nil, errcode.New(errcode.EIFParsing, "%s: %w", path, err)
	}
	return image, f.Close, nil
}

func diffFiles(ctx context.Context, a, b string) (*inspect.Difference, error) {
	before, closeBefore, err := openImage(a)
	if err != nil {
		return nil, err
	}
	defer closeBefore()
	after, closeAfter, err := openImage(b)
	if err != nil {
		return nil, err
	}
	defer closeAfter()
	difference, err := inspect.Diff(ctx, before, after)
	return difference, errcode.Wrap(errcode.FileOperationFailure, err)
}

// printContent writes what is in an image for people.
func printContent(p *printer, c inspected) {
	kernel := string(c.Kernel.Format)
	if c.Kernel.Release != "" {
		kernel += ", " + c.Kernel.Release
	}
	p.fields([2]string{"EIF version", strconv.Itoa(int(c.Version))}, [2]string{"architecture", string(c.Arch)},
		[2]string{"kernel", kernel}, [2]string{"machine", c.Machine.String()}, [2]string{"problem", c.Problem}, [2]string{"command line", c.Cmdline})
	var rows [][]cell
	for _, s := range c.Sections {
		rows = append(rows, cells(s.Kind, s.Offset, s.Size))
	}
	p.line("")
	p.table([]string{"SECTION", "OFFSET", "SIZE"}, rows)
	for n, disk := range c.Ramdisks {
		p.line("")
		title := fmt.Sprintf("RAMDISK %d", n)
		if disk.Compression != "" {
			title += ", " + disk.Compression
		}
		rows = nil
		for _, f := range disk.Files {
			name := f.Name
			if f.Target != "" {
				name += " -> " + f.Target
			}
			rows = append(rows, cells(f.LsMode(), fmt.Sprintf("%d:%d", f.UID, f.GID), f.Size, name))
		}
		p.table([]string{title, "OWNER", "SIZE", "NAME"}, rows)
		if disk.Problem != "" {
			p.table(nil, [][]cell{{{"problem", red}, {text: disk.Problem}}})
		}
	}
}

// printDifference writes what differs for people.
func printDifference(p *printer, d *inspect.Difference) {
	if d.Same() {
		p.line("The images are the same.")
		return
	}
	for _, s := range d.Sections {
		pcrs := "measured in no PCR"
		if len(s.PCRs) > 0 {
			pcrs = "goes into " + strings.Join(s.PCRs, ", ")
		}
		p.table(nil, [][]cell{{{s.Section, bold}, {text: orNone(s.Before) + " → " + orNone(s.After)}, {text: pcrs}}})
		var rows [][]cell
		for _, f := range s.Files {
			rows = append(rows, cells("  "+f.Change, f.Name))
		}
		p.table(nil, rows)
		if s.Problem != "" {
			p.table(nil, [][]cell{{{"  problem", red}, {text: s.Problem}}})
		}
	}
	for _, pcr := range d.PCRs {
		p.table(nil, [][]cell{{{pcr.PCR, bold}, {text: orNone(pcr.Before) + " → " + orNone(pcr.After)}}})
	}
}

func orNone(text string) string {
	if text == "" {
		return "none"
	}
	return text
}
