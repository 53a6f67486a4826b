package sender

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"syscall"

	"code.dny.dev/ssrf"
)

// Setting is the environment variable that allows private targets. Refusals name
// it, so that an operator knows where to turn.
const Setting = "MEDILAB_ALLOW_TARGETS"

// Targets are the networks that webhooks may call besides the public Internet.
// The zero value allows none.
type Targets struct {
	all      bool
	prefixes []netip.Prefix
}

var (
	loopbackPrefixes = prefixes("127.0.0.0/8", "::1/128")
	privatePrefixes  = prefixes("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")

	// metadata are the metadata services of clouds outside the link-local range.
	// They hand out credentials, so neither the word "private" nor being public
	// (Azure's) allows them; a CIDR that contains them does.
	metadata = prefixes("fd00:ec2::254/128", "168.63.129.16/32")
)

// ParseTargets parses the value of MEDILAB_ALLOW_TARGETS: CIDRs, addresses and
// the words loopback, private, all and none, separated by commas.
func ParseTargets(s string) (Targets, error) {
	var t Targets
	for word := range strings.SplitSeq(s, ",") {
		switch word = strings.ToLower(strings.TrimSpace(word)); word {
		case "", "none":
		case "all":
			t.all = true
		case "loopback":
			t.prefixes = append(t.prefixes, loopbackPrefixes...)
		case "private":
			t.prefixes = append(t.prefixes, privatePrefixes...)
		default:
			p, err := ParsePrefix(word)
			if err != nil {
				return Targets{}, fmt.Errorf("%s: %q is neither a network such as 10.0.0.0/8 nor one of the words loopback, private, all, none", Setting, word)
			}
			t.prefixes = append(t.prefixes, p)
		}
	}
	return t, nil
}

// ParsePrefix parses a network, or an address as the network of it alone.
func ParsePrefix(s string) (netip.Prefix, error) {
	if strings.Contains(s, "/") {
		p, err := netip.ParsePrefix(s)
		return p.Masked(), err
	}
	a, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Prefix{}, err
	}
	return netip.PrefixFrom(a, a.BitLen()), nil
}

// RefusedError is an address that may not be called, and the rule that forbids it.
type RefusedError struct {
	Addr netip.Addr
	Rule string // such as "loopback", for a text such as "is a loopback address"
}

// Error names the address, the rule and the setting that would allow it.
func (e *RefusedError) Error() string {
	return fmt.Sprintf("refused: %s is a %s address; %s can allow it", e.Addr, e.Rule, Setting)
}

// guardian allows public addresses on any port: receivers listen where they like.
var guardian = ssrf.New(ssrf.WithAnyPort())

// control is the Dialer.Control of every connection to a receiver. It decides when
// an address is dialled: a name could mean another address a moment later.
func (t Targets) control(network, address string, _ syscall.RawConn) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil || (network != "tcp4" && network != "tcp6") {
		return &RefusedError{Rule: "malformed"}
	}
	return t.check(ap.Addr())
}

func (t Targets) check(a netip.Addr) error {
	if t.all {
		return nil
	}
	// The dialer turns ::ffff:10.0.0.1 into 10.0.0.1, so the rule of that applies.
	// A network contains an address whatever its zone.
	a = a.Unmap().WithZone("")
	contains := func(p netip.Prefix) bool { return p.Contains(a) }
	if slices.ContainsFunc(metadata, contains) {
		named := func(p netip.Prefix) bool { return p.Contains(a) && !slices.Contains(privatePrefixes, p) }
		if slices.ContainsFunc(t.prefixes, named) {
			return nil
		}
		return &RefusedError{Addr: a, Rule: "cloud metadata"}
	}
	if slices.ContainsFunc(t.prefixes, contains) || guardian.SafeAddr(a) == nil {
		return nil
	}
	return &RefusedError{Addr: a, Rule: ruleOf(a)}
}

// rules name the refused networks in an integrator's words, the most specific
// first. They explain a refusal by the guardian, and decide nothing.
var rules = []struct {
	name     string
	prefixes []netip.Prefix
}{
	{"loopback", loopbackPrefixes},
	{"unspecified", prefixes("0.0.0.0/8", "::/128")},
	{"broadcast", prefixes("255.255.255.255/32")},
	{"link-local (cloud metadata)", prefixes("169.254.0.0/16", "fe80::/10")},
	{"private", append(prefixes("fec0::/10"), privatePrefixes...)},
	{"shared (carrier-grade NAT)", prefixes("100.64.0.0/10")},
	{"multicast", prefixes("224.0.0.0/4", "ff00::/8")},
	{"NAT64", prefixes("64:ff9b::/96", "64:ff9b:1::/48")},
	{"6to4", prefixes("2002::/16", "192.88.99.0/24")},
	{"Teredo", prefixes("2001::/32")},
	{"IPv4-compatible", prefixes("::/96")},
	{"documentation", prefixes("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32", "3fff::/20")},
	{"benchmarking", prefixes("198.18.0.0/15")},
}

func ruleOf(a netip.Addr) string {
	for _, r := range rules {
		if slices.ContainsFunc(r.prefixes, func(p netip.Prefix) bool { return p.Contains(a) }) {
			return r.name
		}
	}
	return "reserved"
}

func prefixes(cidrs ...string) []netip.Prefix {
	out := make([]netip.Prefix, len(cidrs))
	for i, c := range cidrs {
		out[i] = netip.MustParsePrefix(c)
	}
	return out
}
