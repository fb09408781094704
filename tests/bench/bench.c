/* bench.c -- one LeNet training step three ways, interleaved in one run: gradd's engine in this process,
 * the daemon over HTTP (libgradd: keep-alive, safetensors), and PyTorch in a process of its own.
 *
 *     bench SERVER THREADS MODEL.json PYTHON|- text|json BATCH...
 *
 * Each round runs a few steps of each contestant, one after the other and each first in turn; what is
 * printed are medians over the rounds. Started by tests/bench/run. */
#include <inttypes.h>
#include <math.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "clients/c/gradd.h"
#include "engine/gradd_engine.h"
#include "proto/gradd_proto.h"

enum { ROUNDS = 21, WARM_UP_STEPS = 3, MAX_STEPS = 500, PIXELS = 32 * 32 };

#define ROUND_SECONDS 0.1 /* for each contestant */

typedef enum contestant { ENGINE, HTTP, TORCH, CONTESTANTS } contestant;

static const char *const names[CONTESTANTS] = {"engine", "http", "torch"};

typedef struct bench {
    int threads;
    gd_engine *engine;
    gd_model *model;
    gradd_client *client;
    FILE *to_torch, *from_torch; /* NULL: there is no PyTorch */
    pid_t torch;
    char torch_version[64];
    float *input;    /* (batch, 1, 32, 32) */
    int64_t *target; /* (batch) */
} bench;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int complain(const char *who, const char *message) {
    fprintf(stderr, "bench: %s: %s\n", who, message);
    return -1;
}

/* ---- the contestants: seconds for `steps` steps, or negative ------------------------------------- */

static double run_engine(const bench *b, int64_t batch, int steps) {
    const gd_tensor input = {GD_FLOAT32, {4, {batch, 1, 32, 32}}, b->input};
    const gd_tensor target = {GD_INT64, {1, {batch}}, b->target};
    gd_error error = GD_ERROR_INIT;
    gd_step_result result;
    double start = now();
    for (int i = 0; i < steps; i++)
        if (gd_model_train_step(b->model, &input, 1, &target, NULL, NULL, &result, &error))
            return complain("engine", error.message);
    return now() - start;
}

static double run_http(const bench *b, int64_t batch, int steps) {
    const gradd_tensor input = {GRADD_FLOAT32, 4, {batch, 1, 32, 32}, b->input};
    const gradd_tensor target = {GRADD_INT64, 1, {batch}, b->target};
    gradd_error error;
    gradd_step_result result;
    double start = now();
    for (int i = 0; i < steps; i++)
        if (gradd_model_train_step(b->client, "bench", &input, &target, NULL, &result, &error))
            return complain("http", error.message);
    return now() - start;
}

static double run_torch(const bench *b, int64_t batch, int steps) {
    char line[64], *end;
    if (fprintf(b->to_torch, "%" PRId64 " %d\n", batch, steps) < 0 || fflush(b->to_torch) ||
        !fgets(line, sizeof line, b->from_torch))
        return complain("torch", "its process ended");
    double seconds = strtod(line, &end);
    return end == line ? complain("torch", line) : seconds;
}

static double run(const bench *b, contestant who, int64_t batch, int steps) {
    switch (who) {
    case ENGINE:
        return run_engine(b, batch, steps);
    case HTTP:
        return run_http(b, batch, steps);
    case TORCH:
        return b->to_torch ? run_torch(b, batch, steps) : 0;
    case CONTESTANTS:
        break;
    }
    return -1;
}

/* ---- setting up ------------------------------------------------------------------------------------- */

static int start_engine(bench *b, json_t *definition) {
    gp_model read = {0};
    gp_error wire = {0};
    gd_error error = GD_ERROR_INIT;
    gd_graph *graph = NULL;
    const gd_engine_config config = {.threads = b->threads, .helpers_only = true};
    int result = -1;
    if (gp_model_read(definition, &read, &wire)) {
        complain("model", wire.detail);
        goto out;
    }
    if (gd_engine_new(&config, &b->engine, &error) || gd_graph_new(&read.graph, &graph, &error) ||
        gd_model_new(b->engine, graph, &read.config, &b->model, &error)) {
        complain("engine", error.message);
        goto out;
    }
    result = 0;
out:
    gd_graph_unref(graph);
    gp_model_release(&read);
    return result;
}

static int start_http(bench *b, const char *server, json_t *definition) {
    const gradd_config config = {.server = server};
    gradd_error error;
    json_object_set_new(definition, "name", json_string("bench"));
    char *text = json_dumps(definition, 0);
    int code = text ? gradd_client_new(&config, &b->client, &error) : -1;
    if (!code)
        code = gradd_model_create(b->client, text, NULL, &error);
    free(text);
    return code ? complain("http", error.message) : 0;
}

/* Without PyTorch (python "-") the other two run alone. */
static int start_torch(bench *b, const char *python) {
    int to[2], from[2];
    char threads[16];
    snprintf(threads, sizeof threads, "%d", b->threads);
    if (strcmp(python, "-") == 0)
        return 0;
    if (pipe(to) || pipe(from))
        return complain("torch", "no pipe");
    b->torch = fork();
    if (b->torch == 0) {
        dup2(to[0], 0);
        dup2(from[1], 1);
        close(to[0]), close(to[1]), close(from[0]), close(from[1]);
        execlp(python, python, "tests/bench/torch_steps.py", threads, (char *)NULL);
        _exit(127);
    }
    close(to[0]), close(from[1]);
    b->to_torch = fdopen(to[1], "w");
    b->from_torch = fdopen(from[0], "r");
    if (b->torch < 0 || !b->to_torch || !b->from_torch ||
        !fgets(b->torch_version, sizeof b->torch_version, b->from_torch))
        return complain(python, "did not start");
    b->torch_version[strcspn(b->torch_version, "\n")] = 0;
    return 0;
}

static int make_batch(bench *b, int64_t most) {
    uint32_t state = 1;
    b->input = malloc((size_t)most * PIXELS * sizeof *b->input);
    b->target = malloc((size_t)most * sizeof *b->target);
    if (!b->input || !b->target)
        return complain("batch", "no memory");
    for (int64_t i = 0; i < most * PIXELS; i++) {
        state = state * 1664525 + 1013904223;
        b->input[i] = (float)(state >> 8) * 0x1p-23F - 1;
    }
    for (int64_t i = 0; i < most; i++)
        b->target[i] = i % 10;
    return 0;
}

static void stop(bench *b) {
    if (b->client)
        gradd_model_delete(b->client, "bench", true, NULL);
    gradd_client_free(b->client);
    if (b->to_torch)
        fclose(b->to_torch); /* ends its loop */
    if (b->from_torch)
        fclose(b->from_torch);
    if (b->torch > 0)
        waitpid(b->torch, NULL, 0);
    gd_model_free(b->model);
    gd_engine_free(b->engine);
    free(b->input);
    free(b->target);
}

/* ---- measuring -------------------------------------------------------------------------------------- */

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* How many steps of a contestant fill its part of a round; also warms it up. 0: it failed. */
static int steps_for(const bench *b, contestant who, int64_t batch) {
    double seconds = run(b, who, batch, WARM_UP_STEPS);
    if (seconds >= 0)
        seconds = run(b, who, batch, WARM_UP_STEPS);
    if (seconds < 0)
        return 0;
    double steps = ROUND_SECONDS * WARM_UP_STEPS / (seconds + 1e-9);
    return steps < 1 ? 1 : steps > MAX_STEPS ? MAX_STEPS : (int)steps;
}

/* Median milliseconds of one step; NaN where a contestant is missing. */
static int measure(const bench *b, int64_t batch, double ret_ms[CONTESTANTS]) {
    double times[CONTESTANTS][ROUNDS];
    int steps[CONTESTANTS];
    for (int who = 0; who < CONTESTANTS; who++)
        if (!(steps[who] = steps_for(b, (contestant)who, batch)))
            return -1;
    for (int round = 0; round < ROUNDS; round++)
        for (int i = 0; i < CONTESTANTS; i++) {
            contestant who = (contestant)((round + i) % CONTESTANTS);
            double seconds = run(b, who, batch, steps[who]);
            if (seconds < 0)
                return -1;
            times[who][round] = 1e3 * seconds / steps[who];
        }
    for (int who = 0; who < CONTESTANTS; who++) {
        qsort(times[who], ROUNDS, sizeof **times, ascending);
        ret_ms[who] = who == TORCH && !b->to_torch ? NAN : times[who][ROUNDS / 2];
    }
    return 0;
}

static void print_text(int64_t batch, const double ms[CONTESTANTS]) {
    printf("%6" PRId64, batch);
    for (int who = 0; who < CONTESTANTS; who++)
        if (isnan(ms[who]))
            printf("  %9s", "-");
        else
            printf("  %6.3f ms", ms[who]);
    for (int who = 0; who < TORCH; who++)
        if (isnan(ms[TORCH]))
            printf("  %12s", "-");
        else
            printf("  %12.2f", ms[who] / ms[TORCH]);
    printf("\n");
    fflush(stdout);
}

static json_t *as_json(int64_t batch, const double ms[CONTESTANTS]) {
    json_t *row = json_pack("{s:I}", "batch", (json_int_t)batch);
    char key[32];
    for (int who = 0; who < CONTESTANTS; who++) {
        snprintf(key, sizeof key, "%s_ms", names[who]);
        json_object_set_new(row, key, isnan(ms[who]) ? json_null() : json_real(ms[who]));
    }
    for (int who = 0; who < TORCH; who++) {
        snprintf(key, sizeof key, "%s_to_torch", names[who]);
        json_object_set_new(row, key, isnan(ms[TORCH]) ? json_null() : json_real(ms[who] / ms[TORCH]));
    }
    return row;
}

static int64_t number(const char *text, int64_t most) {
    char *end;
    long long value = strtoll(text, &end, 10);
    return *end || value < 1 || value > most ? 0 : value;
}

int main(int argc, char **argv) {
    enum { SERVER = 1, THREADS, MODEL, PYTHON, FORMAT, BATCHES };
    bench b = {0};
    json_t *definition = NULL, *rows = NULL;
    int result = 1;
    int64_t most = 0;
    for (int i = BATCHES; i < argc; i++) {
        int64_t batch = number(argv[i], 1 << 20);
        most = batch == 0 || most < 0 ? -1 : batch > most ? batch : most;
    }
    if (argc <= BATCHES || most < 1 || !(b.threads = (int)number(argv[THREADS], 256))) {
        fprintf(stderr, "usage: bench SERVER THREADS MODEL.json PYTHON|- text|json BATCH...\n");
        return 2;
    }
    const bool text = strcmp(argv[FORMAT], "text") == 0;
    signal(SIGPIPE, SIG_IGN);
    definition = json_load_file(argv[MODEL], 0, NULL);
    if (!definition) {
        complain(argv[MODEL], "no such file, or no JSON");
        goto out;
    }
    if (start_torch(&b, argv[PYTHON]) || start_engine(&b, definition) ||
        start_http(&b, argv[SERVER], definition) || make_batch(&b, most))
        goto out;
    if (text) {
        printf("LeNet, one training step; medians of %d rounds, %d thread%s, OpenBLAS %s, PyTorch %s\n",
               ROUNDS, b.threads, b.threads == 1 ? "" : "s", gd_engine_blas_core(),
               b.to_torch ? b.torch_version : "not found");
        printf("%6s  %9s  %9s  %9s  %12s  %12s\n", "batch", "engine", "http", "torch", "engine/torch",
               "http/torch");
    }
    rows = json_array();
    for (int i = BATCHES; i < argc; i++) {
        double ms[CONTESTANTS];
        int64_t batch = number(argv[i], 1 << 20);
        if (measure(&b, batch, ms))
            goto out;
        if (text)
            print_text(batch, ms);
        json_array_append_new(rows, as_json(batch, ms));
    }
    if (!text) {
        json_t *all = json_pack("{s:i, s:i, s:s, s:o, s:O}", "threads", b.threads, "rounds", ROUNDS, "blas",
                                gd_engine_blas_core(), "torch",
                                b.to_torch ? json_string(b.torch_version) : json_null(), "rows", rows);
        json_dumpf(all, stdout, JSON_INDENT(1) | JSON_REAL_PRECISION(6));
        printf("\n");
        json_decref(all);
    }
    result = 0;
out:
    json_decref(rows);
    json_decref(definition);
    stop(&b);
    return result;
}
