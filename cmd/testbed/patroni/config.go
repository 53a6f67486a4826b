package patroni

import (
	"fmt"
	"strings"
	"text/template"
)

// patroniConfig is that of one member. ttl is how long a leader that says nothing stays one;
// Patroni wants ttl >= loop_wait + 2 * retry_timeout, and 20 at least.
var patroniConfig = template.Must(template.New("patroni").Parse(`scope: clinic
namespace: /medilab/
name: {{.name}}
restapi:
  listen: {{.restListens}}
  connect_address: {{.rest}}
etcd3:
  host: {{.etcd}}{{if .through}}
  use_proxies: true                   # this address alone, not those that etcd names{{end}}
bootstrap:
  dcs:
    ttl: {{.ttl}}
    loop_wait: 2
    retry_timeout: 5
    maximum_lag_on_failover: 1048576
    primary_start_timeout: 0          # do not wait for a primary that crashed
    synchronous_mode: {{.synchronous}}   # nothing that was answered 202 is lost
    postgresql:
      use_pg_rewind: true
      parameters:
        wal_log_hints: "on"
        wal_writer_delay: 20ms        # read models reach the standby sooner
        max_connections: 200
        shared_buffers: 64MB
        password_encryption: scram-sha-256
  initdb:
    - encoding: UTF8
    - data-checksums
postgresql:
  listen: {{.listens}}
  connect_address: {{.address}}
  data_dir: {{.dir}}/data
  bin_dir: {{.bin}}
  pgpass: {{.dir}}/pgpass
  authentication:
    superuser: {username: postgres, password: {{.password}}}
    replication: {username: replicator, password: {{.password}}}
  parameters:
    unix_socket_directories: ""
    logging_collector: "off"
  pg_hba:
    - host all all 127.0.0.1/32 scram-sha-256
    - host replication replicator 127.0.0.1/32 scram-sha-256
`))

// haproxyConfig leads to the primary, to a standby, and to the nodes that are ready. A server
// that is no longer what is asked for loses its connections.
func (c *Cluster) haproxyConfig() string {
	var b strings.Builder
	b.WriteString(`defaults
    mode tcp
    timeout connect 3s
    timeout client 1d
    timeout server 1d
    default-server inter 1s fall 2 rise 1 on-marked-down shutdown-sessions
`)
	listen := func(name, address, check string, each func()) {
		fmt.Fprintf(&b, "\nlisten %s\n    bind %s\n    option httpchk GET %s\n    http-check expect status 200\n", name, address, check)
		each()
	}
	for name, at := range map[string]string{"primary": c.primary, "replica": c.replica} {
		listen(name, at, "/"+name, func() {
			for _, m := range c.Members {
				fmt.Fprintf(&b, "    server %s %s check port %s\n", m.Name, m.Address, portOf(m.rest))
			}
		})
	}
	if len(c.options.Nodes) > 0 {
		listen("api", c.API, "/readyz", func() {
			b.WriteString("    mode http\n    balance roundrobin\n    option redispatch\n")
			for i, node := range c.options.Nodes {
				fmt.Fprintf(&b, "    server node%d %s check\n", i+1, node)
			}
		})
	}
	return b.String()
}

// pgbouncerConfig keeps the sessions of the nodes: in another mode they refuse to start.
func (c *Cluster) pgbouncerConfig() string {
	return fmt.Sprintf(`[databases]
postgres = host=127.0.0.1 port=%s dbname=postgres user=postgres password=%s
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %s
auth_type = any
pool_mode = session
default_pool_size = 100
max_client_conn = 200
server_login_retry = 1
unix_socket_dir =
`, portOf(c.primary), c.password, portOf(c.pooler))
}
