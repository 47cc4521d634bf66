"""What the service stands on: Postgres, Redis or Valkey, and the host, by their exporters."""

from monitoring.grafana.generate.panels import (
    NEUTRAL,
    Dashboard,
    Panel,
    Query,
    Row,
    above,
    below,
    stat,
)
from monitoring.grafana.generate.queries import RATE, rate

DISKS = 'device!~"zram.*|loop.*|ram.*"'
FILES = 'fstype!~"tmpfs|overlay|squashfs|ramfs"'

# Every process has the reconciler's gauges; those that look have made a pass.
LOOKED = "and on (job, instance) onsale_reconciler_last_success_timestamp_seconds > 0"

STATES = Row(
    "At a glance",
    (
        stat("Postgres", "1 while it answers its exporter.", "bool_on_off", below(1), "min(pg_up)"),
        stat("Redis", "1 while it answers its exporter.", "bool_on_off", below(1), "min(redis_up)"),
        stat(
            "Postgres connections",
            "Of those that it takes. Good: under 80 %; at 95 % the next process cannot start.",
            "percentunit",
            above(0.8, 0.95),
            "max(postgres_connections_used / postgres_connections_max)",
        ),
        stat(
            "Redis memory",
            "Of what it may use, or of the host's where nothing limits it. Good: under 80 %. Full,"
            " it refuses writes, and the ledger decides alone.",
            "percentunit",
            above(0.8, 0.95),
            "max(redis_memory_used_bytes) / (max(redis_memory_max_bytes) > 0"
            " or max(node_memory_MemTotal_bytes))",
        ),
        stat(
            "Host memory",
            "In use and not to be had at once. Good: under 80 %.",
            "percentunit",
            above(0.8, 0.95),
            "1 - min(node_memory_MemAvailable_bytes / node_memory_MemTotal_bytes)",
        ),
        stat(
            "Fullest disk",
            "Good: under 80 %. A full disk stops the ledger.",
            "percentunit",
            above(0.8, 0.95),
            f"1 - min(node_filesystem_avail_bytes{{{FILES}}} /"
            f" node_filesystem_size_bytes{{{FILES}}})",
        ),
    ),
    height=4,
)

POSTGRES = Row(
    "Postgres",
    (
        Panel(
            "Transactions",
            "A second. Good: rolled back stays near 0; far fewer commits than orders is group"
            " commit at work.",
            "ops",
            NEUTRAL,
            (
                Query(rate("postgres_database_commits_total"), "committed"),
                Query(rate("postgres_database_rollbacks_total"), "rolled back"),
            ),
        ),
        Panel(
            "Sessions by state",
            "Good: idle in transaction is 0; it holds locks while nobody works.",
            "none",
            above(80, 95),
            (Query("sum by (state)(postgres_sessions_count)", "{{state}}"),),
            stacked=True,
        ),
        Panel(
            "What sessions at work wait for",
            "Good: CPU and WALSync. Lock is a queue for rows; LWLock many processes in one place.",
            "none",
            NEUTRAL,
            (
                Query(
                    'sum by (wait_type, wait)(postgres_sessions_count{state="active"})',
                    "{{wait_type}} {{wait}}",
                ),
                Query('0 * count(postgres_sessions_count{state="idle"})', "none"),
            ),
            stacked=True,
        ),
        Panel(
            "Oldest transaction",
            "And the longest that one was left idle. Good: under 1 s; a long one keeps vacuum from"
            " cleaning up.",
            "s",
            above(5, 60),
            (
                Query("max(postgres_transactions_longest_seconds)", "oldest"),
                Query("max(postgres_transactions_longest_idle_seconds)", "left idle"),
            ),
        ),
        Panel(
            "Locks waited for",
            "Good: 0, save for a moment. A number that stays names a session that blocks others.",
            "none",
            above(1, 10),
            (
                Query("sum(postgres_lock_waits_sessions)", "sessions"),
                Query("max(postgres_lock_waits_longest_seconds)", "seconds, the longest"),
            ),
        ),
        Panel(
            "Log written",
            "Bytes of WAL a second. Good: follows the orders; a checkpoint makes it jump.",
            "Bps",
            NEUTRAL,
            (Query(rate("postgres_wal_bytes_total"), "WAL"),),
        ),
        Panel(
            "One WAL sync",
            "Mean. Good: under 5 ms on a local disk. Every commit waits for one.",
            "s",
            above(0.005, 0.02),
            (
                Query(
                    f"{rate('postgres_wal_sync_seconds_total')}"
                    f" / ({rate('postgres_wal_syncs_total')} > 0)",
                    "sync",
                ),
            ),
        ),
        Panel(
            "Blocks found in memory",
            "Of all that were read. Good: over 99 %.",
            "percentunit",
            below(0.9, 0.99),
            (
                Query(
                    f"{rate('postgres_database_blocks_hit_total')}"
                    f" / ({rate('postgres_database_blocks_hit_total')}"
                    f" + {rate('postgres_database_blocks_read_total')} > 0)",
                    "hits",
                ),
            ),
        ),
        Panel(
            "Dead rows",
            "By table, that vacuum has not cleaned away yet. Good: goes up and down.",
            "none",
            above(1_000_000, 10_000_000),
            (Query("sum by (table)(postgres_table_dead_rows)", "{{table}}"),),
        ),
    ),
)

REDIS = Row(
    "Redis or Valkey",
    (
        Panel(
            "Main thread",
            "CPU, of one core. Good: under 70 %; it decides on one core.",
            "percentunit",
            above(0.7, 0.9),
            (
                Query(rate("redis_cpu_user_main_thread_seconds_total"), "user"),
                Query(rate("redis_cpu_sys_main_thread_seconds_total"), "system"),
            ),
            stacked=True,
        ),
        Panel(
            "Commands",
            "A second, by name. Good: one script a batch, not one an order.",
            "ops",
            NEUTRAL,
            (Query(rate("redis_commands_total", "", "cmd"), "{{cmd}}"),),
            stacked=True,
        ),
        Panel(
            "Time in commands",
            "Seconds a second, by name. Good: under 0.7 in all; the rest is the network.",
            "percentunit",
            above(0.7, 0.9),
            (Query(rate("redis_commands_duration_seconds_total", "", "cmd"), "{{cmd}}"),),
            stacked=True,
        ),
        Panel(
            "Memory",
            "Good: level between sales. Without a limit (0), the host is the limit.",
            "bytes",
            NEUTRAL,
            (
                Query("max(redis_memory_used_bytes)", "used"),
                Query("max(redis_memory_used_rss_bytes)", "resident"),
                Query("max(redis_memory_max_bytes)", "limit"),
            ),
        ),
        Panel(
            "Evictions and refusals",
            "Good: 0. An evicted key would be lost stock: the policy has to be noeviction.",
            "ops",
            above(0.01, 0.1),
            (
                Query(rate("redis_evicted_keys_total"), "evicted"),
                Query(rate("redis_rejected_connections_total"), "connections refused"),
            ),
        ),
        Panel(
            "Clients and slow commands",
            "Good: clients level; the slow log does not grow.",
            "none",
            above(1_000, 10_000),
            (
                Query("max(redis_connected_clients)", "clients"),
                Query("max(redis_blocked_clients)", "blocked"),
                Query("max(redis_slowlog_length)", "in the slow log"),
            ),
        ),
        Panel(
            "What a crash of the gate would lose",
            "As the reconciler finds the gate's servers. Good: 1 throughout: an append-only file,"
            " whose last write went well, and no key let go when memory is full.",
            "bool_on_off",
            below(1),
            (
                Query(f"min(onsale_gate_aof_enabled {LOOKED})", "keeps a file"),
                Query(f"min(onsale_gate_aof_ok {LOOKED})", "writes it well"),
                Query("1 - max(onsale_gate_evicts)", "keeps every key"),
            ),
            "state-timeline",
            width=16,
        ),
        Panel(
            "Syncs that waited for the disk",
            "Of the append-only files, since the servers started. Good: level; while it grows, a"
            " crash loses more than a second, and everybody waits for the disk.",
            "none",
            NEUTRAL,
            (Query("max(onsale_gate_aof_delayed_fsyncs)", "delayed"),),
        ),
    ),
)

HOST = Row(
    "Host",
    (
        Panel(
            "CPU",
            "Share of all cores, by what they do. Good: together under 70 %; steal is taken by"
            " other guests of the machine.",
            "percentunit",
            above(0.7, 0.9),
            (
                Query(
                    'avg by (mode)(sum by (mode, cpu)(rate(node_cpu_seconds_total{mode!="idle"}'
                    f"{RATE})))",
                    "{{mode}}",
                ),
            ),
            stacked=True,
        ),
        Panel(
            "Pressure",
            "The share of time in which something that could run waited (PSI). Good: under 20 %.",
            "percentunit",
            above(0.2, 0.6),
            (
                Query(rate("node_pressure_cpu_waiting_seconds_total"), "CPU"),
                Query(rate("node_pressure_io_waiting_seconds_total"), "disk"),
                Query(rate("node_pressure_memory_waiting_seconds_total"), "memory"),
            ),
        ),
        Panel(
            "Memory available",
            "What can be had without swapping. Good: more than a fifth of what there is.",
            "bytes",
            below(268_435_456, 1_073_741_824),
            (Query("min(node_memory_MemAvailable_bytes)", "available"),),
        ),
        Panel(
            "Disks busy",
            "Share of time in which a disk had something to do. Good: under 70 %.",
            "percentunit",
            above(0.7, 0.9),
            (
                Query(
                    f"max by (device)(rate(node_disk_io_time_seconds_total{{{DISKS}}}{RATE}))",
                    "{{device}}",
                ),
            ),
        ),
        Panel(
            "Network",
            "Bytes a second, over all interfaces but the loopback. Good: far below the line's"
            " rate.",
            "Bps",
            NEUTRAL,
            (
                Query(rate("node_network_receive_bytes_total", 'device!="lo"'), "in"),
                Query(rate("node_network_transmit_bytes_total", 'device!="lo"'), "out"),
            ),
        ),
        Panel(
            "Connections that the kernel dropped",
            "Because nobody accepted them in time. Good: 0; otherwise a process's backlog is full.",
            "ops",
            above(1, 10),
            (
                Query(rate("node_netstat_TcpExt_ListenDrops"), "dropped"),
                Query(rate("node_netstat_TcpExt_ListenOverflows"), "backlog full"),
            ),
        ),
    ),
)

INFRASTRUCTURE = Dashboard(
    "infrastructure",
    "Infrastructure",
    "Postgres, Redis or Valkey, and the host, as their exporters see them.",
    (STATES, POSTGRES, REDIS, HOST),
)
