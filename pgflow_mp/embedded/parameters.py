"""PostgreSQL settings of the embedded server: durable, and sized for one batch machine."""

from __future__ import annotations

from pathlib import Path

import psutil

_MB = 1024 * 1024
MAX_CONNECTIONS = 100


def usable_memory() -> int:
    """Return the memory this process may use, in bytes: the machine's, or its cgroup's if less."""
    limits = [int(psutil.virtual_memory().total)]
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            limits.append(int((Path("/sys/fs/cgroup") / name).read_text()))
        except (OSError, ValueError):
            continue
    return min(limits)


def server_settings(*, throwaway: bool = False) -> dict[str, str]:
    """Return the settings for ``postgresql.conf``. Every one exists in PostgreSQL 15 to 18."""
    memory = usable_memory()
    shared = max(128 * _MB, min(memory // 4, 2048 * _MB))
    settings = {
        "max_connections": str(MAX_CONNECTIONS),
        "shared_buffers": f"{(128 * _MB if throwaway else shared) // _MB}MB",
        "effective_cache_size": f"{max(256, memory // 2 // _MB)}MB",
        "work_mem": "16MB",
        "maintenance_work_mem": f"{max(64, min(512, memory // 32 // _MB))}MB",
        "huge_pages": "try",
        # Durable: what was reported as settled survives a power cut.
        "fsync": "on",
        "synchronous_commit": "on",
        "full_page_writes": "on",
        # Nothing replicates or archives this server, so its log need not say more than a restart needs.
        "wal_level": "minimal",
        "max_wal_senders": "0",
        "max_logical_replication_workers": "0",
        "wal_compression": "on",
        "wal_buffers": "16MB",
        "min_wal_size": "256MB",
        "max_wal_size": "4GB",
        "checkpoint_timeout": "15min",
        "checkpoint_completion_target": "0.9",
        # Queue tables change all the time: vacuum early, in small and quick rounds.
        "autovacuum_naptime": "15s",
        "autovacuum_vacuum_cost_limit": "2000",
        # All cores belong to the lanes: no parallel plans, no compilation of plans.
        "jit": "off",
        "max_parallel_workers_per_gather": "0",
        "random_page_cost": "1.1",
        # Not in /dev/shm, which is tiny in containers, emptied at logout by systemd, and keeps what a
        # killed server had there. With a part set aside in the main segment it is hardly ever used.
        "dynamic_shared_memory_type": "mmap",
        "min_dynamic_shared_memory": "16MB",
        "password_encryption": "scram-sha-256",
        "datestyle": "iso, mdy",
        "timezone": "UTC",
        "log_timezone": "UTC",
        "lc_messages": "C",
        "lc_monetary": "C",
        "lc_numeric": "C",
        "lc_time": "C",
        "default_text_search_config": "pg_catalog.simple",
        "log_line_prefix": "%m [%p] %q%a ",
        "log_checkpoints": "off",
    }
    if throwaway:
        settings |= {
            "fsync": "off",
            "synchronous_commit": "off",
            "full_page_writes": "off",
            "max_wal_size": "1GB",
            "min_wal_size": "80MB",
        }
    return settings
