package eif

import (
	"bytes"
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// Description is what nitro-cli's describe-eif prints, with its keys in its order.
type Description struct {
	Version        uint16           `json:"EifVersion"`
	Measurements   Measurements     `json:"Measurements"`
	IsSigned       bool             `json:"IsSigned"`
	Certificate    *CertificateInfo `json:"SigningCertificate,omitempty"`
	CheckCRC       bool             `json:"CheckCRC"`
	SignatureCheck *bool            `json:"SignatureCheck,omitempty"` // where the image is signed

	// Stray is how many bytes of the file belong to no section: the hypervisor skips them, nitro-cli does not.
	Stray int64 `json:"-"`
	Identity
}

// Identity is what nitro-cli prints of an image's metadata, where it has some.
type Identity struct {
	ImageName    *string       `json:"ImageName,omitempty"` // may be empty; nil without metadata
	ImageVersion *string       `json:"ImageVersion,omitempty"`
	Metadata     *MetadataInfo `json:"Metadata,omitempty"`
}

// CertificateInfo is what nitro-cli prints of a signing certificate, with names and dates as OpenSSL writes them.
type CertificateInfo struct {
	Issuer    map[string]string `json:"IssuerName"`
	Algorithm string            `json:"Algorithm"`
	NotBefore string            `json:"NotBefore"`
	NotAfter  string            `json:"NotAfter"`
	Signature string            `json:"Signature"` // upper-case hex, bytes parted by colons
}

// MetadataInfo is what nitro-cli prints of an image's metadata.
type MetadataInfo struct {
	BuildTime        string `json:"BuildTime"`
	BuildTool        string `json:"BuildTool"`
	BuildToolVersion string `json:"BuildToolVersion"`
	OperatingSystem  string `json:"OperatingSystem"`
	KernelVersion    string `json:"KernelVersion"`
	DockerInfo       any    `json:"DockerInfo"`

	Custom map[string]any `json:"-"` // the user's own keys, which stand beside the others
}

// MarshalJSON returns an object with the fixed keys in nitro-cli's order, and the user's own behind them, sorted.
func (m MetadataInfo) MarshalJSON() ([]byte, error) {
	type fixed MetadataInfo
	object, err := json.Marshal(fixed(m))
	if err != nil || len(m.Custom) == 0 {
		return object, err
	}
	custom, err := json.Marshal(m.Custom)
	if err != nil {
		return nil, err
	}
	return append(append(object[:len(object)-1], ','), custom[1:]...), nil
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (m *MetadataInfo) UnmarshalJSON(object []byte) error {
	type fixed MetadataInfo
	var known fixed
	if err := decode(object, &known); err != nil {
		return err
	}
	if err := decode(object, &known.Custom); err != nil {
		return err
	}
	for _, key := range []string{"BuildTime", "BuildTool", "BuildToolVersion", "OperatingSystem", "KernelVersion", "DockerInfo"} {
		delete(known.Custom, key)
	}
	*m = MetadataInfo(known)
	return nil
}

// Describe reads the EIF that fills r's first size bytes and tells all that nitro-cli's describe-eif does. An image
// that is damaged or wrongly signed is described too, and an error beside the description says so.
func Describe(ctx context.Context, r io.ReaderAt, size int64) (*Description, error) {
	img, err := Open(r, size)
	if err != nil {
		return nil, err
	}
	report, err := img.Check(ctx)
	if err != nil {
		return nil, err
	}
	d := &Description{
		Version:      img.Header().Version,
		Measurements: report.Measurements,
		CheckCRC:     report.CRCErr == nil,
		Stray:        img.Stray() + size - img.Size(),
	}
	if report.Signature != nil || report.SignatureErr != nil {
		valid := report.SignatureErr == nil
		d.IsSigned, d.SignatureCheck = true, &valid
	}
	if report.Signature != nil {
		d.Certificate = describeCertificate(report.Signature.Certificate)
		err = report.Signature.CheckValidity(time.Now())
	}
	identity, metadataErr := img.Identity()
	d.Identity = identity
	return d, errors.Join(report.Err(), err, metadataErr)
}

// Identity returns what the image's metadata say, or nothing where it has none.
func (img *Image) Identity() (id Identity, err error) {
	raw, err := img.Metadata()
	if err != nil || raw == nil {
		return id, err
	}
	m, err := ParseMetadata(raw)
	if err != nil {
		return id, err
	}
	id.ImageName, id.ImageVersion = &m.ImageName, &m.ImageVersion
	id.Metadata = &MetadataInfo{
		BuildTime:        m.Build.BuildTime,
		BuildTool:        m.Build.BuildTool,
		BuildToolVersion: m.Build.BuildToolVersion,
		OperatingSystem:  m.Build.OperatingSystem,
		KernelVersion:    m.Build.KernelVersion,
	}
	if err := decode(m.DockerInfo, &id.Metadata.DockerInfo); err != nil {
		return id, err
	}
	return id, decode(m.Custom, &id.Metadata.Custom)
}

// decode reads JSON, keeping its numbers as they are; printed again, its keys are sorted, as nitro-cli does.
func decode(raw json.RawMessage, value any) error {
	if len(raw) == 0 {
		return nil
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	if err := d.Decode(value); err != nil {
		return fmt.Errorf("metadata: %w", err)
	}
	return nil
}

func describeCertificate(cert *x509.Certificate) *CertificateInfo {
	octets := make([]string, len(cert.Signature))
	for i, b := range cert.Signature {
		octets[i] = fmt.Sprintf("%02X", b)
	}
	return &CertificateInfo{
		Issuer:    describeName(cert.Issuer),
		Algorithm: describeAlgorithm(cert.SignatureAlgorithm),
		NotBefore: openSSLTime(cert.NotBefore),
		NotAfter:  openSSLTime(cert.NotAfter),
		Signature: strings.Join(octets, ":"),
	}
}

// attributeNames are OpenSSL's long names of the attributes of a name (RFC 5280, appendix A.1).
var attributeNames = map[string]string{
	"2.5.4.3":  "commonName",
	"2.5.4.5":  "serialNumber",
	"2.5.4.6":  "countryName",
	"2.5.4.7":  "localityName",
	"2.5.4.8":  "stateOrProvinceName",
	"2.5.4.9":  "streetAddress",
	"2.5.4.10": "organizationName",
	"2.5.4.11": "organizationalUnitName",
}

func describeName(name pkix.Name) map[string]string {
	described := make(map[string]string)
	for _, attribute := range name.Names {
		key := attribute.Type.String()
		if long, ok := attributeNames[key]; ok {
			key = long
		}
		described[key] = fmt.Sprint(attribute.Value)
	}
	return described
}

func describeAlgorithm(a x509.SignatureAlgorithm) string {
	switch a {
	case x509.ECDSAWithSHA256:
		return "ecdsa-with-SHA256"
	case x509.ECDSAWithSHA384:
		return "ecdsa-with-SHA384"
	case x509.ECDSAWithSHA512:
		return "ecdsa-with-SHA512"
	default:
		return a.String()
	}
}

// openSSLTime writes a time as OpenSSL's ASN1_TIME_print does.
func openSSLTime(t time.Time) string { return t.UTC().Format("Jan _2 15:04:05 2006 GMT") }
