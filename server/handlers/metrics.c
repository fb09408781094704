/* metrics.c -- GET /metrics: what the counters say, and how the process does. */
#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "handlers.h"

static void add_gauge(gp_text *text, const char *name, const char *help, double value) {
    gs_metrics_head(text, name, "gauge", help);
    gp_text_add(text, "%s %.17g\n", name, value);
}

static void add_counter(gp_text *text, const char *name, const char *help, double value) {
    gs_metrics_head(text, name, "counter", help);
    gp_text_add(text, "%s %.17g\n", name, value);
}

static double resident_bytes(void) {
    char line[128] = "";
    FILE *file = fopen("/proc/self/statm", "re");
    if (file) {
        if (!fgets(line, sizeof line, file)) {
            line[0] = '\0';
        }
        fclose(file);
    }
    const char *second = strchr(line, ' '); /* the first number is the virtual size */
    return second ? (double)strtol(second, NULL, 10) * (double)sysconf(_SC_PAGESIZE) : 0;
}

/* Since Linux 6.2 the size of the folder says how many there are; before, it is 0. */
static double open_files(void) {
    struct stat status = {.st_size = 0};
    if (!stat("/proc/self/fd", &status) && status.st_size > 0) {
        return (double)status.st_size;
    }
    DIR *folder = opendir("/proc/self/fd");
    double count = -1; /* the folder's own */
    for (const struct dirent *entry; folder && (entry = readdir(folder));) {
        count += entry->d_name[0] != '.';
    }
    if (folder) {
        closedir(folder);
    }
    return count > 0 ? count : 0;
}

static double cpu_seconds(void) {
    struct rusage usage = {0};
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

static void add_process(gp_text *text, const gs_server *server) {
    struct rlimit files = {0};
    getrlimit(RLIMIT_NOFILE, &files);
    add_counter(text, "process_cpu_seconds_total", "Processor time.", cpu_seconds());
    add_gauge(text, "process_resident_memory_bytes", "Resident memory.", resident_bytes());
    add_gauge(text, "process_start_time_seconds", "Start, in seconds since 1970.",
              (double)server->started_ms / 1000);
    add_gauge(text, "process_open_fds", "Open file descriptors.", open_files());
    add_gauge(text, "process_max_fds", "File descriptors that may be open.", (double)files.rlim_cur);
}

static void add_memory(gp_text *text, gs_server *server) {
    gs_metrics_head(
        text, "gradd_memory_bytes", "gauge",
        "Memory of models with what they keep, of their metrics, and of request bodies on their way.");
    gp_text_add(text,
                "gradd_memory_bytes{kind=\"models\"} %zu\ngradd_memory_bytes{kind=\"history\"} %zu\n"
                "gradd_memory_bytes{kind=\"bodies\"} %zu\n",
                gd_engine_memory(server->engine) + atomic_load(&server->models.kept.used),
                gs_models_history_memory(&server->models), (size_t)atomic_load(&server->bodies.used));
    gs_metrics_head(text, "gradd_memory_limit_bytes", "gauge",
                    "What --max-memory and --max-body-memory allow.");
    gp_text_add(text,
                "gradd_memory_limit_bytes{kind=\"models\"} %" PRId64
                "\ngradd_memory_limit_bytes{kind=\"bodies\"} %" PRId64 "\n",
                server->config.max_memory, server->config.max_body_memory);
}

int gs_handle_metrics(gs_request *request, gp_error *error) {
    gs_server *server = request->server;
    const gs_metrics *metrics = &server->metrics;
    gp_text text = {0};
    size_t waiting, running;
    gs_executor_load(&server->executor, &waiting, &running);
    gs_metrics_head(&text, "gradd_build_info", "gauge", "What runs.");
    gp_text_add(&text, "gradd_build_info{version=\"%s\",commit=\"%s\",build=\"%s\"} 1\n",
                gs_this_version.version, gs_this_version.commit, gs_this_version.build);
    add_gauge(&text, "gradd_models", "Models hosted.", (double)gs_models_count(&server->models));
    add_memory(&text, server);
    add_gauge(&text, "gradd_queue_depth", "Requests that wait for their turn.", (double)waiting);
    add_gauge(&text, "gradd_requests_running", "Requests that compute now.", (double)running);
    add_gauge(&text, "gradd_connections", "Open connections.", (double)metrics->connections);
    add_counter(&text, "gradd_connections_accepted_total", "Connections accepted.",
                (double)metrics->connections_total);
    add_counter(&text, "gradd_http_received_bytes_total", "Bytes of request bodies.",
                (double)metrics->bytes_in);
    add_counter(&text, "gradd_http_sent_bytes_total", "Bytes of reply bodies.", (double)metrics->bytes_out);
    gs_metrics_write(&text, metrics);
    add_process(&text, server);
    return gs_reply_text(request, 200, GS_MEDIA_METRICS, &text, error);
}
