// Package sources takes events from message brokers through Watermill, and accepts each
// once.
package sources

import (
	"cmp"
	"fmt"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/ThreeDotsLabs/watermill/message"
)

// Source is a stream, queue or topic of a broker that events are taken from.
type Source struct {
	// Name tells it from others. What it sends has the actor source:<Name>.
	Name string

	broker *broker
	hosts  []string
	tls    bool
	user   *url.Userinfo
	path   string // of AMQP: the virtual host
	topic  string
	filter string // of NATS: the subject
	group  string // of Kafka, and the durable consumer of NATS

	dialled *atomic.Int64 // how often, of AMQP
}

// broker is a kind of broker.
type broker struct {
	scheme    string
	secure    string // the scheme over TLS
	port      string // the usual
	topic     string // parameter that names the stream, queue or topic
	others    []string
	subscribe func(Source, environment) (message.Subscriber, error)
}

var brokers = []broker{
	{scheme: "nats", secure: "nats+tls", port: "4222", topic: "stream", others: []string{"subject", "durable"}, subscribe: subscribeNATS},
	{scheme: "amqp", secure: "amqps", port: "5672", topic: "queue", subscribe: subscribeAMQP},
	{scheme: "kafka", secure: "kafka+tls", port: "9092", topic: "topic", others: []string{"group"}, subscribe: subscribeKafka},
}

var validName = regexp.MustCompile(`^[\pL\pN._-]{1,200}$`)

// usualGroup is the consumer group, or durable consumer, if a source names none.
const usualGroup = "medilab-webhooks"

// nextSource is where another source begins: hosts of one are separated by commas too.
var nextSource = regexp.MustCompile(`,\s*[a-z+]+://`)

// Parse returns the sources that the text names, separated by commas:
//
//	nats://host:4222/?stream=clinic&subject=clinic.>
//	amqp://user:password@host/vhost?queue=clinic
//	kafka://host1:9092,host2:9092?topic=clinic&group=webhooks
//
// The schemes nats+tls, amqps and kafka+tls use TLS. A source is named after its stream,
// queue or topic unless the parameter name sets another name. Errors quote no password.
func Parse(text string) ([]Source, error) {
	var all []Source
	for text = strings.TrimSpace(text); text != ""; {
		one, rest := text, ""
		if at := nextSource.FindStringIndex(text); at != nil {
			one, rest = text[:at[0]], strings.TrimSpace(text[at[0]+1:])
		}
		source, err := parse(strings.TrimSpace(one))
		if err != nil {
			return nil, fmt.Errorf("source %d: %w", len(all)+1, err)
		}
		if slices.ContainsFunc(all, func(s Source) bool { return s.Name == source.Name }) {
			return nil, fmt.Errorf("source %d: another has the name %q; give it one of its own by &name=", len(all)+1, source.Name)
		}
		all, text = append(all, source), rest
	}
	return all, nil
}

func parse(text string) (s Source, err error) {
	scheme, rest, found := strings.Cut(text, "://")
	at := slices.IndexFunc(brokers, func(b broker) bool { return scheme == b.scheme || scheme == b.secure })
	if !found || at < 0 {
		return s, fmt.Errorf("must begin with nats://, amqp:// or kafka://, or nats+tls://, amqps:// or kafka+tls://")
	}
	s.broker, s.dialled = &brokers[at], &atomic.Int64{}
	s.tls = scheme == s.broker.secure
	end := strings.IndexAny(rest, "/?")
	if end < 0 {
		end = len(rest)
	}
	authority, hosts := "", rest[:end]
	if i := strings.LastIndexByte(hosts, '@'); i >= 0 {
		authority, hosts = hosts[:i+1], hosts[i+1:]
	}
	u, err := url.Parse(s.broker.scheme + "://" + authority + "host" + rest[end:])
	if err != nil {
		return s, fmt.Errorf("is no URL: user, password and parameters must be percent-encoded")
	}
	s.user, s.path = u.User, strings.TrimPrefix(u.Path, "/")
	if s.hosts, err = hostsOf(hosts, s.broker.port); err != nil {
		return s, err
	}
	return s, s.parameters(u)
}

func hostsOf(text, port string) ([]string, error) {
	hosts := strings.Split(text, ",")
	for i, host := range hosts {
		u, err := url.Parse("//" + strings.TrimSpace(host))
		if err != nil || u.Hostname() == "" {
			return nil, fmt.Errorf("names no host: write it as host:%s", port)
		}
		if hosts[i] = u.Host; u.Port() == "" {
			hosts[i] = net.JoinHostPort(u.Hostname(), port)
		} else if n, err := strconv.ParseUint(u.Port(), 10, 16); err != nil || n == 0 {
			return nil, fmt.Errorf("has the port %s; use 1 to 65535", u.Port())
		}
	}
	return hosts, nil
}

func (s *Source) parameters(u *url.URL) error {
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return fmt.Errorf("has parameters that cannot be read: write them as ?%s=NAME", s.broker.topic)
	}
	known := append([]string{"name", s.broker.topic}, s.broker.others...)
	for name, values := range query {
		if !slices.Contains(known, name) {
			return fmt.Errorf("has the unknown parameter %q; use %s", name, strings.Join(known, ", "))
		}
		if len(values) > 1 {
			return fmt.Errorf("has the parameter %q twice", name)
		}
	}
	s.topic, s.filter = query.Get(s.broker.topic), query.Get("subject")
	if s.topic == "" {
		return fmt.Errorf("names no %s: add ?%s=NAME", s.broker.topic, s.broker.topic)
	}
	s.Name = cmp.Or(query.Get("name"), s.topic)
	if !validName.MatchString(s.Name) {
		return fmt.Errorf("must have a name of 1 to 200 letters, digits and ._-: give one by &name=")
	}
	s.group = cmp.Or(query.Get("group"), query.Get("durable"), usualGroup)
	return nil
}

// Actor is who events of the source are recorded to be from.
func (s Source) Actor() string { return "source:" + s.Name }

// secret returns what must not show in logs: the password, or the user that stands alone, as
// a token of NATS does.
func (s Source) secret() string {
	if password, ok := s.user.Password(); ok {
		return password
	}
	return s.user.Username()
}
