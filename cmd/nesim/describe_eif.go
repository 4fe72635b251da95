package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/nesim/nesim/eif"
	"github.com/nesim/nesim/sim/errcode"
)

func describeEIF() *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use:   "describe-eif (FILE | --eif-path FILE)",
		Short: "Check, measure and describe an Enclave Image File",
		RunE: func(cmd *cobra.Command, _ []string) error {
			described, err := describe(cmd.Context(), path)
			if described != nil {
				if described.Stray > 0 {
					fmt.Fprintf(cmd.ErrOrStderr(), "note: %d bytes of %s belong to no section: the hypervisor skips them, "+
						"nitro-cli may refuse to describe such a file; sign-eif and build-enclave write none\n", described.Stray, path)
				}
				err = errors.Join(show(cmd, described, func(p *printer) {
					printImage(p, described)
					if m, merr := machineOf(cmd.Context(), path); merr == nil {
						p.fields([2]string{"machine", m.String()})
					}
				}), err)
			}
			return err
		},
	}
	cmd.Flags().StringVar(&path, "eif-path", "", "Enclave Image File to describe")
	fileOperand(cmd)
	_ = cmd.MarkFlagRequired("eif-path")
	_ = cmd.MarkFlagFilename("eif-path", "eif")
	return cmd
}

func describe(ctx context.Context, path string) (*eif.Description, error) {
	f, size, err := openEIF(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	described, err := eif.Describe(ctx, f, size)
	if err != nil {
		return described, errcode.Wrap(imageCode(described, err), fmt.Errorf("%s: %w", path, err))
	}
	return described, nil
}

// openEIF opens a file that may be an EIF. A FIFO or a folder is refused.
func openEIF(path string) (*os.File, int64, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, 0, errcode.Wrap(errcode.FileOperationFailure, err)
	}
	if !info.Mode().IsRegular() {
		return nil, 0, errcode.New(errcode.FileOperationFailure, "%s: not a file", path)
	}
	f, err := os.Open(path)
	return f, info.Size(), errcode.Wrap(errcode.FileOperationFailure, err)
}

// imageCode is the code for what is wrong with an image: where all but the signature and its certificate's dates is
// right, E59, as from run-enclave.
func imageCode(d *eif.Description, err error) errcode.Code {
	if d != nil && d.IsSigned && d.CheckCRC && !errors.Is(err, eif.ErrFormat) {
		return errcode.EIFSignatureChecker
	}
	return errcode.EIFParsing
}

// printImage prints a description for people.
func printImage(p *printer, d *eif.Description) {
	p.fields([2]string{"image", text(d.ImageName)}, [2]string{"version", text(d.ImageVersion)},
		[2]string{"EIF version", strconv.Itoa(int(d.Version))})
	p.measurements(d.Measurements)
	p.table(nil, [][]cell{{{"CRC", bold}, verdict(d.CheckCRC, "right", "wrong")}})
	if d.SignatureCheck != nil {
		p.table(nil, [][]cell{{{"signature", bold}, verdict(*d.SignatureCheck, "good", "bad")}})
	}
	if c := d.Certificate; c != nil {
		p.fields([2]string{"issuer", c.Issuer["commonName"]}, [2]string{"algorithm", c.Algorithm},
			[2]string{"valid from", c.NotBefore}, [2]string{"valid to", c.NotAfter})
	}
	if m := d.Metadata; m != nil {
		p.fields([2]string{"built", m.BuildTime}, [2]string{"by", m.BuildTool + " " + m.BuildToolVersion},
			[2]string{"system", m.OperatingSystem}, [2]string{"kernel", m.KernelVersion})
	}
}

func verdict(good bool, yes, no string) cell {
	if good {
		return cell{yes, green}
	}
	return cell{no, red}
}

// measurements writes PCRs for people.
func (p *printer) measurements(m eif.Measurements) {
	pairs := [][2]string{{"PCR0", m.PCR0.String()}, {"PCR1", m.PCR1.String()}, {"PCR2", m.PCR2.String()}}
	if m.PCR8 != nil {
		pairs = append(pairs, [2]string{"PCR8", m.PCR8.String()})
	}
	p.fields(pairs...)
}
