package primary

import (
	"crypto/sha256"
	"fmt"
	"strings"
)

// instanceType is the EC2 instance type that the VM calls itself: the smallest m5 that can have enclaves.
const instanceType = "m5.xlarge"

// vendor is what a Nitro instance calls its maker, in every table.
const vendor = "Amazon EC2"

// smbios makes the VM's SMBIOS tables those of a Nitro instance with the instance ID, as dmidecode shows them and Linux in
// /sys/devices/virtual/dmi/id. nitro-cli (src/enclave_proc/utils.rs, generate_enclave_id) makes an enclave's ID of
// board_asset_tag; the EC2 User Guide ("Detect whether a host is an EC2 instance") names that and the UUID.
func (c *Config) smbios() []string {
	if c.InstanceID == "" {
		return nil
	}
	uuid := instanceUUID(c.InstanceID)
	return []string{
		"-smbios", "type=0,vendor=" + vendor + ",version=1.0,date=10/16/2017",
		"-smbios", "type=1,manufacturer=" + vendor + ",product=" + instanceType + ",serial=" + uuid + ",uuid=" + uuid,
		"-smbios", "type=2,manufacturer=" + vendor + ",asset=" + escape(c.InstanceID),
		"-smbios", "type=3,manufacturer=" + vendor + ",asset=" + vendor,
	}
}

// instanceUUID is a UUID that begins as every instance's, and is always the same for an instance ID.
func instanceUUID(id string) string {
	sum := sha256.Sum256([]byte(id))
	h := fmt.Sprintf("ec2%x", sum)
	return strings.Join([]string{h[:8], h[8:12], h[12:16], h[16:20], h[20:32]}, "-")
}

// escape doubles commas, which separate the options of a QEMU option list.
func escape(s string) string { return strings.ReplaceAll(s, ",", ",,") }
