//go:build linux

package postgres

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/dayfly-dev/dayfly"
)

// throwaway are the settings of a clone: its data are gone anyway when the host fails, and what it does not
// write it need not have for itself.
func throwaway() map[string]string {
	return map[string]string{
		// Commits reach the kernel, so that a server that is killed loses none, and never wait for the device.
		"fsync": "off", "synchronous_commit": "on", "full_page_writes": "off",
		"wal_level": "minimal", "max_wal_senders": "0", "max_logical_replication_workers": "0",
		"wal_init_zero": "off", "wal_recycle": "off", "min_wal_size": "32MB", "max_wal_size": "1GB", "wal_buffers": "1MB",
		"checkpoint_timeout": "1h", "checkpoint_completion_target": "0.9",
		"shared_buffers": "32MB", "huge_pages": "off", "max_connections": "50", "jit": "off",
		// Nothing happens in a clone that nobody uses.
		"autovacuum_naptime": "5min", "autovacuum_max_workers": "1", "bgwriter_delay": "10s", "bgwriter_lru_maxpages": "0", "wal_writer_delay": "10s",
		"log_min_messages": "warning", "log_checkpoints": "off", "log_autovacuum_min_duration": "-1", "log_timezone": "UTC", "timezone": "UTC",
		"lc_messages": "C", "log_line_prefix": "%m ", "default_text_search_config": "pg_catalog.english",
		"password_encryption": "scram-sha-256", "cluster_name": "", "update_process_title": "off",
	}
}

// loading are the settings under which a source is loaded.
func loading(jobs int) map[string]string {
	s := throwaway()
	s["max_wal_size"] = "8GB"
	s["shared_buffers"] = "128MB"
	s["maintenance_work_mem"] = "256MB"
	s["max_parallel_maintenance_workers"] = strconv.Itoa(jobs)
	s["autovacuum"] = "off"
	s["min_wal_size"] = "32MB"
	s["track_counts"] = "off"
	s["synchronous_commit"] = "off"
	s["max_connections"] = "100"
	return s
}

// ours are settings that decide where a server writes, whom it lets in and what it runs.
var ours = []string{
	"port", "listen_addresses", "unix_socket_directories", "unix_socket_group", "unix_socket_permissions",
	"data_directory", "config_file", "hba_file", "ident_file", "external_pid_file", "stats_temp_directory", "logging_collector",
	"log_directory", "log_filename", "archive_mode", "archive_command", "archive_library", "archive_cleanup_command", "restore_command",
	"recovery_end_command", "primary_conninfo", "primary_slot_name", "ssl_passphrase_command", "dynamic_library_path", "krb_server_keyfile",
	"ssl_ca_file", "ssl_cert_file", "ssl_key_file", "ssl_crl_file", "ssl_crl_dir", "ssl_dh_params_file", "ssl",
	"include", "include_dir", "include_if_exists", "password_encryption", "allow_system_table_mods", "log_destination",
	"local_preload_libraries", "session_preload_libraries", "jit_provider",
}

var settingName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,62}(\.[A-Za-z_][A-Za-z0-9_]{0,62})?$`)

// CheckSettings says what is wrong with the settings that a user asks for. Whether the server
// knows them shows when it starts.
func CheckSettings(settings map[string]string) error {
	var problems []dayfly.Problem
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		value := settings[name]
		message := ""
		switch {
		case !settingName.MatchString(name):
			message = "this is no name of a setting"
		case slices.Contains(ours, strings.ToLower(name)):
			message = "dayfly sets this itself"
		case strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r == 0x7f }):
			message = "a value is one line of text"
		case strings.HasSuffix(strings.ToLower(name), "_libraries") && strings.ContainsAny(value, "/\\"):
			message = "libraries go by their names"
		default:
			continue
		}
		problems = append(problems, dayfly.Problem{Field: "settings." + name, Message: message})
	}
	if len(problems) > 0 {
		return dayfly.Invalid(problems...)
	}
	return nil
}

// quote writes a value as postgresql.conf wants it.
func quote(value string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `''`).Replace(value) + "'"
}

// configuration gives postgresql.conf: base, over which extra goes.
func configuration(base, extra map[string]string) []byte {
	all := maps.Clone(base)
	for name, value := range extra {
		all[strings.ToLower(name)] = value
	}
	var b strings.Builder
	b.WriteString("# Written by dayfly at each start.\n")
	for _, name := range slices.Sorted(maps.Keys(all)) {
		fmt.Fprintf(&b, "%s = %s\n", name, quote(all[name]))
	}
	return []byte(b.String())
}

// hba lets our own superuser in through the socket, and user over TCP; "" = nobody.
func hba(user string) []byte {
	s := "local all all peer map=dayfly\n"
	if user != "" {
		s += `host all "` + user + `" all scram-sha-256` + "\n"
	}
	return []byte(s)
}

// ident says which users of the operating system are our superuser.
func ident(names ...string) []byte {
	var b strings.Builder
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		for _, role := range []string{admin, renamer} {
			fmt.Fprintf(&b, "dayfly \"%s\" %s\n", name, role)
		}
	}
	return []byte(b.String())
}

var userName = regexp.MustCompile(`^[a-z_][a-z0-9_]{0,62}$`)

func checkUser(name string) error {
	if !userName.MatchString(name) || strings.HasPrefix(name, "pg_") || strings.HasPrefix(name, "dayfly_") {
		return dayfly.Invalid(dayfly.Problem{Field: "user", Message: fmt.Sprintf("%q cannot be the user of a database: use up to 63 lower-case letters, digits and _, without pg_ or dayfly_ in front", name)})
	}
	return nil
}
