package inspect

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/nesim/nesim/eif"
)

// Difference reports what differs between two images.
type Difference struct {
	Sections []SectionChange
	PCRs     []PCRChange // those whose values differ
}

// Same reports whether nothing differs.
func (d *Difference) Same() bool { return len(d.Sections) == 0 && len(d.PCRs) == 0 }

// SectionChange is a section that is not the same in both images.
type SectionChange struct {
	Section string       // "kernel", "command line", "ramdisk 0" ..., "metadata", "signature"; "header" for its version and flags
	PCRs    []string     // that it goes into
	Before  string       // its size in bytes, or what it says; "" where the first image has none
	After   string       // the same in the second
	Files   []FileChange `json:",omitempty"`
	Problem string       `json:",omitempty"` // why its files could not be compared, if so
}

// FileChange is a file of a ramdisk that is not the same in both.
type FileChange struct {
	Name   string
	Change string // "added", "removed", or what changed: "content", "mode", "owner", "type", "links"
}

// PCRChange is a PCR that is not the same in both images. "" is one that an image has not.
type PCRChange struct {
	PCR           string
	Before, After string
}

// Diff compares two images, section by section, and the files of ramdisks that differ.
func Diff(ctx context.Context, before, after *eif.Image) (*Difference, error) {
	d := &Difference{Sections: []SectionChange{}, PCRs: []PCRChange{}}
	a, err := before.Check(ctx)
	if err != nil {
		return nil, fmt.Errorf("first image: %w", err)
	}
	b, err := after.Check(ctx)
	if err != nil {
		return nil, fmt.Errorf("second image: %w", err)
	}
	d.comparePCRs(a.Measurements, b.Measurements)
	if x, y := header(before), header(after); x != y {
		d.Sections = append(d.Sections, SectionChange{Section: "header", PCRs: []string{}, Before: x, After: y})
	}
	was, is := parts(before), parts(after)
	for _, name := range slices.Sorted(maps.Keys(union(was, is))) {
		if err := d.compare(ctx, was[name], is[name]); err != nil {
			return nil, err
		}
	}
	return d, nil
}

func header(image *eif.Image) string {
	h := image.Header()
	return fmt.Sprintf("version %d, %s", h.Version, h.Arch())
}

func (d *Difference) comparePCRs(a, b eif.Measurements) {
	for _, pcr := range []struct {
		name string
		a, b *eif.Digest
	}{{"PCR0", &a.PCR0, &b.PCR0}, {"PCR1", &a.PCR1, &b.PCR1}, {"PCR2", &a.PCR2, &b.PCR2}, {"PCR8", a.PCR8, b.PCR8}} {
		if x, y := digest(pcr.a), digest(pcr.b); x != y {
			d.PCRs = append(d.PCRs, PCRChange{pcr.name, x, y})
		}
	}
}

func digest(d *eif.Digest) string {
	if d == nil {
		return ""
	}
	return d.String()
}

// part is a section with what it is called.
type part struct {
	name    string
	pcrs    []string
	ramdisk bool
	data    *io.SectionReader
}

// parts returns an image's sections, by keys that both images' sections of one kind share, and that sort well.
func parts(image *eif.Image) map[string]*part {
	all := map[string]*part{}
	ramdisks := 0
	for _, s := range image.Sections() {
		p := &part{name: s.Kind.String(), pcrs: []string{}, data: image.Data(s)}
		key := ""
		switch s.Kind {
		case eif.SectionKernel, eif.SectionCmdline:
			p.pcrs = []string{"PCR0", "PCR1"}
			key = fmt.Sprintf("0 %d", s.Kind)
		case eif.SectionRamdisk:
			p.pcrs = []string{"PCR0", "PCR2"}
			if ramdisks == 0 {
				p.pcrs[1] = "PCR1"
			}
			p.name, p.ramdisk = fmt.Sprintf("ramdisk %d", ramdisks), true
			key = fmt.Sprintf("1 %03d", ramdisks)
			ramdisks++
		case eif.SectionSignature:
			p.pcrs = []string{"PCR8"}
			key = "3"
		case eif.SectionMetadata:
			key = "2"
		}
		all[key] = p
	}
	return all
}

func union(a, b map[string]*part) map[string]*part {
	all := maps.Clone(a)
	maps.Copy(all, b)
	return all
}

// compare compares a section, of which one may be nil.
func (d *Difference) compare(ctx context.Context, before, after *part) error {
	some := before
	if some == nil {
		some = after
	}
	if before != nil && after != nil {
		same, err := equal(ctx, before.data, after.data)
		if err != nil || same {
			return err
		}
	}
	change := SectionChange{Section: some.name, PCRs: some.pcrs, Before: before.summary(), After: after.summary()}
	if some.ramdisk && before != nil && after != nil {
		files, err := diffRamdisks(ctx, before.data, after.data)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if change.Files = files; err != nil {
			change.Problem = err.Error()
		}
	}
	d.Sections = append(d.Sections, change)
	return nil
}

// summary is a section in a few words: the command line's text, others' size.
func (p *part) summary() string {
	if p == nil {
		return ""
	}
	if p.name == eif.SectionCmdline.String() {
		text, err := io.ReadAll(io.NewSectionReader(p.data, 0, p.data.Size()))
		if err == nil {
			return string(text)
		}
	}
	return fmt.Sprintf("%d bytes", p.data.Size())
}

// equal compares two sections.
func equal(ctx context.Context, a, b *io.SectionReader) (bool, error) {
	if a.Size() != b.Size() {
		return false, nil
	}
	x, y := make([]byte, 256<<10), make([]byte, 256<<10)
	for offset := int64(0); offset < a.Size(); offset += int64(len(x)) {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		n := min(int64(len(x)), a.Size()-offset)
		if _, err := a.ReadAt(x[:n], offset); err != nil && err != io.EOF {
			return false, err
		}
		if _, err := b.ReadAt(y[:n], offset); err != nil && err != io.EOF {
			return false, err
		}
		if string(x[:n]) != string(y[:n]) {
			return false, nil
		}
	}
	return true, nil
}

// listed is a file with its content's digest.
type listed struct {
	File
	content string
}

// diffRamdisks compares the files of two ramdisks, by their names.
func diffRamdisks(ctx context.Context, before, after io.Reader) ([]FileChange, error) {
	was, err := list(ctx, before)
	if err != nil {
		return nil, fmt.Errorf("in the first image: %w", err)
	}
	is, err := list(ctx, after)
	if err != nil {
		return nil, fmt.Errorf("in the second image: %w", err)
	}
	names := maps.Clone(was)
	maps.Copy(names, is)
	changes := []FileChange{}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		a, there := was[name]
		b, here := is[name]
		what := ""
		switch {
		case !there:
			what = "added"
		case !here:
			what = "removed"
		default:
			what = differs(a, b)
		}
		if what != "" {
			changes = append(changes, FileChange{name, what})
		}
	}
	return changes, nil
}

// differs tells the first thing in which two files differ, or "".
func differs(a, b listed) string {
	switch {
	case a.Mode.Type() != b.Mode.Type():
		return "type"
	case a.content != b.content || a.Target != b.Target || a.Major != b.Major || a.Minor != b.Minor:
		return "content"
	case a.Mode != b.Mode:
		return "mode"
	case a.UID != b.UID || a.GID != b.GID:
		return "owner"
	case a.Links != b.Links:
		return "links"
	}
	return ""
}

// list reads a ramdisk's files. Of a name that is there twice, the last one counts, as for Linux.
func list(ctx context.Context, r io.Reader) (map[string]listed, error) {
	files := map[string]listed{}
	_, err := Walk(ctx, r, func(f *File, content io.Reader) error {
		h := sha256.New()
		if _, err := io.Copy(h, content); err != nil {
			return err
		}
		files[f.Name] = listed{*f, hex.EncodeToString(h.Sum(nil))}
		return nil
	})
	return files, err
}
