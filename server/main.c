/* main.c -- read the configuration, build everything, run, take it down in reverse order. */
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "checkpoints.h"
#include "http.h"
#include "jobs.h"
#include "listen.h"
#include "loop.h"
#include "request.h"
#include "server.h"

enum {
    EXIT_USAGE = 2,
    SPARE_FILES = 128 /* descriptors beside the connections' */,
    LAST_SAVE_SECONDS = 5 /* for saving models at the end, beside --drain-timeout */
};

static int fail(const char *what, const char *why) {
    fprintf(stderr, "gradd: %s: %s\n", what, why);
    return -1;
}

/* Bodies come and go with every request: giving their pages back each time, to have them zeroed anew, takes
 * longer than reading a batch. */
static void keep_freed_memory(void) {
#ifdef __GLIBC__
    mallopt(M_MMAP_THRESHOLD, 4 << 20);
    mallopt(M_TRIM_THRESHOLD, 64 << 20);
#endif
}

/* Take descriptors for every connection, as far as the hard limit goes. */
static int raise_file_limit(int64_t connections) {
    struct rlimit limit;
    rlim_t need = (rlim_t)connections + SPARE_FILES;
    if (getrlimit(RLIMIT_NOFILE, &limit) || limit.rlim_cur >= need) {
        return 0;
    }
    limit.rlim_cur = need;
    if (need > limit.rlim_max || setrlimit(RLIMIT_NOFILE, &limit)) {
        char why[128];
        snprintf(why, sizeof why, "%lld connections need %llu open files, but the limit is %llu (ulimit -n)",
                 (long long)connections, (unsigned long long)need, (unsigned long long)limit.rlim_max);
        return fail("--max-connections", why);
    }
    return 0;
}

static int start_engine(gs_server *server) {
    gs_config *config = &server->config;
    if (!config->threads) {
        int processors = get_nprocs();
        config->threads = processors < 1 ? 1 : processors > 256 ? 256 : processors;
    }
    if (!config->max_memory) {
        struct sysinfo info;
        config->max_memory =
            sysinfo(&info) ? INT64_C(1) << 30 : (int64_t)((double)info.totalram * info.mem_unit * 0.75);
    }
    gd_engine_config engine = {.threads = (int)config->threads,
                               .memory_limit = (size_t)config->max_memory,
                               .cpu_features = config->cpu_features};
    gd_error error = GD_ERROR_INIT;
    if (!gd_engine_new(&engine, &server->engine, &error)) {
        return 0;
    }
    return fail(strcmp(error.field, "cpu_features") ? "engine" : "--cpu-features", error.message);
}

static int load_tokens(gs_server *server, const char *host) {
    const gs_config *config = &server->config;
    char why[256];
    if (*config->token_file) {
        server->auth = gs_auth_load(config->token_file, why, sizeof why);
        return server->auth ? 0 : fail("--token-file", why);
    }
    if (!config->insecure_no_auth && !gs_listen_is_local(host)) {
        snprintf(why, sizeof why,
                 "%s is reachable from other machines; give --token-file FILE so that clients must "
                 "know a token, or --insecure-no-auth to let anyone in",
                 config->listen);
        return fail("--listen", why);
    }
    return 0;
}

static int start_listening(gs_server *server) {
    char why[512];
    int port;
    if (!gs_config_split_address(server->config.listen, server->listen_host, sizeof server->listen_host,
                                 &port)) {
        return fail("--listen", "must be HOST:PORT, such as 127.0.0.1:7117 or [::1]:7117");
    }
    if (load_tokens(server, server->listen_host)) {
        return -1;
    }
    int fd = gs_listen(server->listen_host, port, &server->listen_port, &server->listens_anywhere, why,
                       sizeof why);
    if (fd < 0) {
        return fail("--listen", why);
    }
    server->http = gs_http_start(server, fd);
    return server->http ? 0 : fail("http", "the server could not be started");
}

/* Where state belongs when nobody says. NULL: nowhere. */
static const char *default_folder(char *path, size_t size) {
    const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    bool given = state && *state == '/'; /* a relative one does not count, as the specification has it */
    if (!given && (!home || *home != '/')) {
        return NULL;
    }
    snprintf(path, size, "%s%s/gradd", given ? state : home, given ? "" : "/.local/state");
    return path;
}

static int open_store(gs_server *server) {
    const gs_config *config = &server->config;
    char path[4096], why[6144];
    const char *folder = config->ephemeral   ? NULL
                         : *config->data_dir ? config->data_dir
                                             : default_folder(path, sizeof path);
    if (!folder && !config->ephemeral) {
        return fail("--data-dir",
                    "there is no home directory; give a folder, or --ephemeral to keep nothing");
    }
    if (gs_store_open(folder, &server->log, &server->store, why, sizeof why)) {
        return fail("--data-dir", why);
    }
    server->idempotency =
        gs_idempotency_new((size_t)config->max_idempotency_keys, (size_t)config->max_idempotency_memory);
    gp_error error = {0};
    if (!server->idempotency) {
        return fail("--max-idempotency-keys", "out of memory");
    }
    return gs_idempotency_load(server->idempotency, server->store, &error) ? fail("--data-dir", error.detail)
                                                                           : 0;
}

static int serve(gs_server *server) {
    const gs_config *config = &server->config;
    char why[512];
    gp_error error = {0};
    gs_spools_init(&server->spools, (size_t)config->max_uploads);
    server->bodies.limit = (size_t)config->max_body_memory;
    server->started_ms = gs_time_ms();
    server->loop = gs_loop_new(server);
    if (!server->loop) {
        return fail("event loop", "could not be made");
    }
    if (raise_file_limit(config->max_connections) || open_store(server) || start_engine(server)) {
        return -1;
    }
    gs_executor_init(&server->executor, server->engine, (size_t)config->max_queue, gs_request_run,
                     gs_loop_wake, server->loop);
    gs_queue_init(&server->common, &server->executor, NULL, NULL, NULL);
    if (gs_models_init(&server->models, &server->executor, (size_t)config->max_models,
                       (size_t)config->max_memory)) {
        return fail("--max-models", "out of memory");
    }
    server->models.history =
        (gs_history_limits){.items = (size_t)config->max_history, .keys = (size_t)config->max_metric_keys};
    if (gs_datasets_init(&server->datasets, server->store, &server->log, (size_t)config->max_datasets,
                         &error)) {
        return fail("datasets", error.detail);
    }
    server->models.server = server;
    if (gs_models_restore(server, &error)) {
        return fail("--data-dir", error.detail);
    }
    server->jobs = gs_jobs_new(server);
    if (!server->jobs) {
        return fail("--max-jobs", "out of memory");
    }
    server->metrics.count_jobs = gs_jobs_count;
    server->metrics.count_jobs_argument = server->jobs;
    if (start_listening(server)) {
        return -1;
    }
    if (gs_jobs_restore(server->jobs, &error)) {
        return fail("--data-dir", error.detail);
    }
    if (*config->port_file && gs_write_port(config->port_file, server->listen_port, why, sizeof why)) {
        return fail("--port-file", why);
    }
    gs_log_event(&server->log, GS_INFO, "listening", GS_S("host", server->listen_host),
                 GS_I("port", server->listen_port), GS_S("version", gs_this_version.version),
                 GS_S("commit", gs_this_version.commit), GS_I("threads", config->threads),
                 GS_I("max_memory", config->max_memory));
    return gs_loop_run(server->loop) ? fail("event loop", "could not be started") : 0;
}

/* served: it has listened, so that the log shows an end to it */
static void take_down(gs_server *server, bool served) {
    gs_http_stop(server->http);
    gs_spools_release(&server->spools);
    if (server->engine) {
        gs_executor_wait(&server->executor);
        gs_jobs_stop(server->jobs);
        gs_autosave_all(server, server->config.drain_timeout + LAST_SAVE_SECONDS);
        gs_models_release(&server->models);
        gd_engine_free(server->engine);
        gs_executor_release(&server->executor);
    }
    gs_datasets_release(&server->datasets);
    gs_store_close(server->store);
    gs_jobs_free(server->jobs);
    gs_idempotency_free(server->idempotency);
    gs_loop_free(server->loop);
    gs_auth_free(server->auth);
    free(server->version);
    if (served) {
        gs_log_event(&server->log, GS_INFO, "stopped", GS_I("uptime_ms", gs_time_ms() - server->started_ms));
    }
    free(server);
}

int main(int argc, char **argv) {
    gs_config config;
    char message[512];
    switch (gs_config_read(argc, argv, &config, message, sizeof message)) {
    case GS_CONFIG_HELP:
        gs_config_help(stdout);
        return EXIT_SUCCESS;
    case GS_CONFIG_VERSION:
        printf("gradd %s (%s, %s)\ncpu features:", gs_this_version.version, gs_this_version.commit,
               gs_this_version.build);
        for (size_t i = 0; gd_cpu_features_at(i); i++)
            printf(" %s", gd_cpu_features_at(i));
        putchar('\n');
        return EXIT_SUCCESS;
    case GS_CONFIG_BAD:
        fprintf(stderr, "gradd: %s\n", message);
        return EXIT_USAGE;
    case GS_CONFIG_RUN:
        break;
    }
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* a file over its limit is an error like a full disk */
    keep_freed_memory();
    uint64_t seed = 0;
    if (getrandom(&seed, sizeof seed, 0) < 0) {
        seed = (uint64_t)getpid();
    }
    json_object_seed(seed); /* hash collisions must not be foreseeable */
    gs_server *server = calloc(1, sizeof *server);
    if (!server) {
        fail("server", "out of memory");
        return EXIT_FAILURE;
    }
    server->config = config;
    server->log = (gs_log){.level = (gs_level)config.log_level, .json = config.log_format == 1};
    int result = serve(server);
    take_down(server, result == 0);
    return result ? EXIT_FAILURE : EXIT_SUCCESS;
}
