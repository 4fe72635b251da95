package kms

import (
	"net"
	"net/http"
	"net/netip"
	"regexp"
	"slices"
	"strings"
)

// endpointName is the form of AWS KMS's own host names ("AWS Key Management Service endpoints and quotas", AWS General
// Reference), by which clients call through a proxy. Nobody can make one of them resolve to this machine but its user.
var endpointName = regexp.MustCompile(`^kms(-fips)?\.[a-z0-9-]+\.(amazonaws\.com(\.cn)?|api\.aws)$`)

// servesHost reports whether a request's Host header is a name of this service: of the loopback interface, the address
// that the connection came to, an AWS endpoint, or one of Config.Hosts. A page in the user's browser whose own name
// resolves to this machine (DNS rebinding) comes with that name. Only TCP can be reached so.
func (s *Service) servesHost(r *http.Request) bool {
	local, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
	if !ok {
		return true
	}
	host := r.Host
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
	if ip, err := netip.ParseAddr(host); err == nil && !slices.Contains(s.hosts, host) {
		ip = ip.Unmap()
		return ip.IsLoopback() || ip.WithZone("") == local.AddrPort().Addr().Unmap().WithZone("")
	}
	return host == "localhost" || strings.HasSuffix(host, ".localhost") || endpointName.MatchString(host) || slices.Contains(s.hosts, host)
}
