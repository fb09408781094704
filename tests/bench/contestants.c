/* contestants.c -- what a side does in its own process: steps in the engine, over HTTP, or matrix products.
 */
#include <curl/curl.h>
#include <inttypes.h>
#include <math.h>
#include <signal.h>
#include <unistd.h>

#include "clients/c/gradd.h"
#include "engine/graph/isa.h"
#include "engine/kernels/gemm.h"
#include "tests/bench/sides.h"

typedef struct contestant contestant;
struct contestant {
    bench_job job;
    bench_work work;
    double operations; /* of a step */
    /* One step. @param ret_value its loss, or of predict the first output @return 0; -1 */
    int (*step)(const contestant *c, double *ret_value);
    gd_engine *engine;
    gd_model *model;
    gradd_client *client;
    CURL *curl;
    struct curl_slist *headers;
    gp_text body;
    float *matrices; /* three of (batch, batch) */
    bool blas;       /* their product is OpenBLAS's, not ours */
};

/* ---- the engine ------------------------------------------------------------------------------------- */

static int engine_step(const contestant *c, double *ret_value) {
    gd_error error = GD_ERROR_INIT;
    gd_step_result result;
    gd_tensor output;
    const bool train = c->job.task == BENCH_TRAIN;
    if (train ? gd_model_train_step(c->model, &c->work.input, 1, &c->work.target, NULL, NULL, &result, &error)
              : gd_model_predict(c->model, &c->work.input, 1, &output, &error))
        return bench_complain("engine", error.message);
    *ret_value = train ? result.loss : *(const float *)output.data;
    return 0;
}

static int engine_open(contestant *c) {
    const gd_engine_config config = {.threads = c->job.threads, .helpers_only = true};
    gd_error error = GD_ERROR_INIT;
    c->step = engine_step;
    if (gd_engine_new(&config, &c->engine, &error) ||
        gd_model_new(c->engine, c->work.graph, &c->work.model.config, &c->model, &error))
        return bench_complain("engine", error.message);
    c->operations = bench_flops(c->model, c->job.task, c->job.batch);
    return 0;
}

/* ---- HTTP by safetensors ------------------------------------------------------------------------------ */

static gradd_tensor borrowed(const gd_tensor *tensor) {
    gradd_tensor t = {
        tensor->dtype == GD_INT64 ? GRADD_INT64 : GRADD_FLOAT32, tensor->shape.rank, {0}, tensor->data};
    memcpy(t.shape, tensor->shape.dim, (size_t)tensor->shape.rank * sizeof *t.shape);
    return t;
}

static int http_step(const contestant *c, double *ret_value) {
    const gradd_tensor input = borrowed(&c->work.input), target = borrowed(&c->work.target);
    gradd_error error;
    gradd_step_result result;
    gradd_tensor output;
    if (c->job.task == BENCH_TRAIN) {
        if (gradd_model_train_step(c->client, c->job.hosted, &input, &target, NULL, &result, &error))
            return bench_complain("http", error.message);
        *ret_value = result.loss;
    } else {
        if (gradd_model_predict(c->client, c->job.hosted, &input, &output, &error))
            return bench_complain("http", error.message);
        *ret_value = *(const float *)output.data;
        gradd_tensor_free(&output);
    }
    return 0;
}

static int http_open(contestant *c) {
    const gradd_config config = {.server = c->job.server};
    gradd_error error;
    c->step = http_step;
    json_object_set_new(c->work.definition, "name", json_string(c->job.hosted));
    char *text = json_dumps(c->work.definition, 0);
    int code = text ? gradd_client_new(&config, &c->client, &error) : -1;
    if (!code)
        code = gradd_model_create(c->client, text, NULL, &error);
    free(text);
    return code ? bench_complain("http", error.message) : 0;
}

/* ---- HTTP by JSON ------------------------------------------------------------------------------------- */

static size_t take_reply(char *bytes, size_t size, size_t count, void *reply) {
    gp_text_append(reply, bytes, size * count);
    return size * count;
}

static int json_step(const contestant *c, double *ret_value) {
    gp_text reply = {0};
    long status = 0;
    curl_easy_setopt(c->curl, CURLOPT_WRITEDATA, &reply);
    CURLcode code = curl_easy_perform(c->curl);
    curl_easy_getinfo(c->curl, CURLINFO_RESPONSE_CODE, &status);
    json_t *answer = reply.data ? json_loadb(reply.data, reply.size, 0, NULL) : NULL;
    json_t *loss = json_object_get(answer, "loss");
    const bool good = code == CURLE_OK && status == 200 && loss;
    if (good)
        *ret_value = json_number_value(loss);
    else
        bench_complain("json", reply.data ? reply.data : curl_easy_strerror(code));
    json_decref(answer);
    gp_text_release(&reply);
    return good ? 0 : -1;
}

static int json_open(contestant *c) {
    char url[256];
    if (http_open(c))
        return -1;
    c->step = json_step;
    gp_text_add(&c->body, "{\"input\": ");
    gp_json_write_tensor(&c->body, &c->work.input);
    gp_text_add(&c->body, ", \"target\": ");
    gp_json_write_tensor(&c->body, &c->work.target);
    gp_text_add(&c->body, "}");
    c->curl = curl_easy_init();
    c->headers = curl_slist_append(curl_slist_append(NULL, "Content-Type: application/json"), "Expect:");
    if (!c->curl || !c->headers || c->body.failed)
        return bench_complain("json", "no memory");
    snprintf(url, sizeof url, "%s/v1/models/%s/train_step", c->job.server, c->job.hosted);
    curl_easy_setopt(c->curl, CURLOPT_URL, url);
    curl_easy_setopt(c->curl, CURLOPT_NOPROXY, "*");
    curl_easy_setopt(c->curl, CURLOPT_HTTPHEADER, c->headers);
    curl_easy_setopt(c->curl, CURLOPT_POSTFIELDS, c->body.data);
    curl_easy_setopt(c->curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)c->body.size);
    curl_easy_setopt(c->curl, CURLOPT_WRITEFUNCTION, take_reply);
    return 0;
}

/* ---- matrix products ---------------------------------------------------------------------------------- */

static int gemm_step(const contestant *c, double *ret_value) {
    const int64_t n = c->job.batch;
    float *a = c->matrices, *b = a + n * n, *product = b + n * n;
    const gd_isa *isa;
    gd_isa_choose(c->blas ? "portable" : NULL, &isa, NULL); /* portable code has OpenBLAS do it */
    isa->gemm(false, false, n, n, n, a, n, b, n, product, n, false);
    *ret_value = product[0];
    return 0;
}

static double seconds_of_products(contestant *c, bool blas) {
    enum { PRODUCTS = 7 };
    double times[PRODUCTS], value;
    c->blas = blas;
    for (int i = 0; i < PRODUCTS; i++) {
        const double start = bench_now();
        gemm_step(c, &value);
        times[i] = bench_now() - start;
    }
    return bench_median(times, PRODUCTS);
}

/* The peak is the faster one's, OpenBLAS's or ours. */
static int gemm_open(contestant *c) {
    const int64_t n = c->job.batch;
    c->step = gemm_step;
    c->operations = 2.0 * (double)n * (double)n * (double)n;
    c->matrices = malloc(3 * (size_t)n * (size_t)n * sizeof *c->matrices);
    if (!c->matrices)
        return bench_complain("gemm", "no memory");
    for (int64_t i = 0; i < 3 * n * n; i++)
        c->matrices[i] = (float)(i % 17) / 17;
    gd_blas_single_threaded();
    c->blas = seconds_of_products(c, true) < seconds_of_products(c, false);
    return 0;
}

/* ---- all of them ------------------------------------------------------------------------------------- */

static int (*const opens[BENCH_KINDS])(contestant *) = {[BENCH_ENGINE] = engine_open,
                                                        [BENCH_HTTP] = http_open,
                                                        [BENCH_JSON] = json_open,
                                                        [BENCH_GEMM] = gemm_open};

static int open_contestant(contestant *c, bench_kind kind) {
    if (!opens[kind])
        return bench_complain(bench_kind_name(kind), "it is no side of this program");
    if (kind != BENCH_GEMM && bench_work_open(c->job.model, c->job.batch, &c->work))
        return -1;
    return opens[kind](c);
}

static void close_contestant(contestant *c) {
    curl_easy_cleanup(c->curl);
    curl_slist_free_all(c->headers);
    gp_text_release(&c->body);
    if (c->client)
        gradd_model_delete(c->client, c->job.hosted, true, NULL);
    gradd_client_free(c->client);
    gd_model_free(c->model);
    gd_engine_free(c->engine);
    free(c->matrices);
    bench_work_close(&c->work);
}

static int serve(const contestant *c) {
    char line[64];
    double value = 0;
    if (c->step(c, &value))
        return -1;
    printf("ready %.9g %d %.17g\n", value, (int)getpid(), c->operations);
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        const long steps = strtol(line, NULL, 10);
        const double start = bench_now();
        for (long i = 0; i < steps; i++)
            if (c->step(c, &value))
                return -1;
        if (steps < 1)
            printf("%ld\n", bench_peak_memory(0));
        else
            printf("%.9f\n", bench_now() - start);
        fflush(stdout);
        if (steps < 1)
            break;
    }
    return 0;
}

int bench_side_main(int argc, char **argv) {
    enum { KIND, MODEL, TASK, BATCH, THREADS, SERVER, HOSTED, ARGUMENTS };
    contestant c = {0};
    bench_kind kind = BENCH_KINDS;
    signal(SIGINT, SIG_IGN); /* the parent ends us */
    if (argc != ARGUMENTS)
        return bench_complain("--side", "is not for users"), 2;
    for (int k = 0; k < BENCH_KINDS; k++)
        if (strcmp(argv[KIND], bench_kind_name((bench_kind)k)) == 0)
            kind = (bench_kind)k;
    if (kind == BENCH_KINDS)
        return bench_complain(argv[KIND], "there is no such side"), 2;
    c.job = (bench_job){.model = argv[MODEL],
                        .task = strcmp(argv[TASK], "train") == 0 ? BENCH_TRAIN : BENCH_PREDICT,
                        .batch = strtoll(argv[BATCH], NULL, 10),
                        .threads = (int)strtol(argv[THREADS], NULL, 10),
                        .server = argv[SERVER],
                        .hosted = argv[HOSTED]};
    const int result = open_contestant(&c, kind) || serve(&c) ? 1 : 0;
    close_contestant(&c);
    return result;
}
