/* fetch.c -- gradctl data fetch: download a public dataset, check it, keep it, upload it. */
#include <curl/curl.h>
#include <errno.h>
#include <nettle/sha2.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "dataset.h"
#include "progress.h"

enum {
    FILES = 4,
    MAX_FILE = 1 << 30, /* bytes */
    MAX_DIGESTS = 1 << 20,
    CONNECT_SECONDS = 20,
    STALL_SECONDS = 60, /* without a byte */
    HEX = 65,           /* a digest's text, with the NUL */
};

/* In the order of the rows below. */
static const struct {
    const char *name, *split, *part;
} files[FILES] = {
    {"train-images-idx3-ubyte.gz", "train", "input"},
    {"train-labels-idx1-ubyte.gz", "train", "target"},
    {"t10k-images-idx3-ubyte.gz", "test", "input"},
    {"t10k-labels-idx1-ubyte.gz", "test", "target"},
};

static const struct {
    const char *name;
    const char *mirrors[3];    /* ends with NULL */
    const char *sha256[FILES]; /* of the files as they are there, gzip'ed */
} datasets[] = {
    {"mnist",
     {"https://ossci-datasets.s3.amazonaws.com/mnist", "https://storage.googleapis.com/cvdf-datasets/mnist",
      NULL},
     {"440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
      "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
      "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
      "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"}},
    {"fashion-mnist",
     {"http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
      "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion", NULL},
     {"3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
      "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
      "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
      "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"}},
};

/* ---- digests ----------------------------------------------------------------------------------------------
 */

static bool file_digest(const char *path, char hex[HEX]) {
    static const char digits[] = "0123456789abcdef";
    unsigned char bytes[1 << 16], digest[SHA256_DIGEST_SIZE];
    struct sha256_ctx context;
    size_t got;
    FILE *file = fopen(path, "re");
    if (!file) {
        return false;
    }
    sha256_init(&context);
    while ((got = fread(bytes, 1, sizeof bytes, file)) > 0) {
        sha256_update(&context, got, bytes);
    }
    const bool read = !ferror(file);
    fclose(file);
    sha256_digest(&context, sizeof digest, digest);
    for (size_t i = 0; i < sizeof digest; i++) {
        hex[2 * i] = digits[digest[i] >> 4];
        hex[2 * i + 1] = digits[digest[i] & 15];
    }
    hex[HEX - 1] = '\0';
    return read;
}

/* Of a file as sha256sum prints them: "digest  name" or "digest *name". */
static int read_digests(const char *path, char digests[FILES][HEX]) {
    char *text = NULL;
    size_t size;
    int status = ctl_file_read(path, MAX_DIGESTS, &text, &size);
    for (size_t i = 0; i < FILES && !status; i++) {
        const char *name = strstr(text, files[i].name);
        if (!name || name - text < HEX + 1) {
            status = ctl_error("%s has no digest of %s", path, files[i].name);
        } else {
            memcpy(digests[i], name - HEX - 1, HEX - 1);
            digests[i][HEX - 1] = '\0';
        }
    }
    free(text);
    return status;
}

/* ---- the cache --------------------------------------------------------------------------------------------
 */

/* Make a folder and those above it. */
static bool make_folders(char *path) {
    for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        (void)mkdir(path, 0777); /* the last one tells */
        *slash = '/';
    }
    return mkdir(path, 0777) == 0 || errno == EEXIST;
}

/* $XDG_CACHE_HOME/gradd/{dataset}, or ~/.cache/gradd/{dataset}. */
static int cache_folder(const char *dataset, char *path, size_t size) {
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    const bool own = cache && *cache == '/';
    if (!own && (!home || !*home)) {
        return ctl_error("set XDG_CACHE_HOME or HOME: downloads are kept there");
    }
    int length = snprintf(path, size, "%s%s/gradd/%s", own ? cache : home, own ? "" : "/.cache", dataset);
    if (length < 0 || (size_t)length >= size || !make_folders(path)) {
        return ctl_error("cannot make the folder %s: %s", path, strerror(errno));
    }
    return CTL_OK;
}

/* ---- downloading ------------------------------------------------------------------------------------------
 */

static int on_progress(void *progress, curl_off_t total, curl_off_t done, curl_off_t a, curl_off_t b) {
    ctl_progress *p = progress;
    (void)a, (void)b;
    p->total = total;
    if (total && done < total) {
        ctl_progress_update(p, done, 0, 0, ctl_now_ns());
    }
    return ctl_interrupted(NULL);
}

/* @return 0 and no message, or curl's code */
static CURLcode transfer(const char *url, FILE *out, ctl_progress *progress, char *detail) {
    CURL *curl = curl_easy_init();
    if (!curl) {
        return CURLE_OUT_OF_MEMORY;
    }
    curl_easy_setopt(curl, CURLOPT_URL, url);
    curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION, 1L);
    curl_easy_setopt(curl, CURLOPT_MAXREDIRS, 5L);
    curl_easy_setopt(curl, CURLOPT_FAILONERROR, 1L);
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT, (long)CONNECT_SECONDS);
    curl_easy_setopt(curl, CURLOPT_LOW_SPEED_LIMIT, 1L);
    curl_easy_setopt(curl, CURLOPT_LOW_SPEED_TIME, (long)STALL_SECONDS);
    curl_easy_setopt(curl, CURLOPT_MAXFILESIZE_LARGE, (curl_off_t)MAX_FILE);
    curl_easy_setopt(curl, CURLOPT_USERAGENT, "gradctl");
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, out);
    curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, on_progress);
    curl_easy_setopt(curl, CURLOPT_XFERINFODATA, progress);
    curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, detail);
    CURLcode result = curl_easy_perform(curl);
    curl_easy_cleanup(curl);
    return result;
}

typedef struct fetch {
    const ctl_options *options;
    const char *const *mirrors;
    char folder[2048];
    char digests[FILES][HEX];
} fetch;

/* From one mirror to `path`; what is not what it should be does not stay.
 * @return CTL_OK; CTL_INTERRUPTED; CTL_UNREACHABLE, CTL_ERROR after a message: try another one */
static int download_from(const fetch *f, const char *mirror, size_t file, const char *path) {
    char url[2048], part[2200], detail[CURL_ERROR_SIZE] = "", digest[HEX] = "";
    ctl_progress progress;
    int status = CTL_OK;
    snprintf(url, sizeof url, "%.*s/%s", (int)(strlen(mirror) - (mirror[strlen(mirror) - 1] == '/')), mirror,
             files[file].name);
    snprintf(part, sizeof part, "%s.part", path);
    FILE *out = fopen(part, "we");
    if (!out) {
        return ctl_error("cannot write %s: %s", part, strerror(errno));
    }
    ctl_progress_open(&progress, f->options->progress);
    progress.bytes = true;
    ctl_progress_begin(&progress, files[file].name, 0, ctl_now_ns());
    CURLcode result = transfer(url, out, &progress, detail);
    if (fclose(out) && !result) {
        result = CURLE_WRITE_ERROR;
    }
    if (result == CURLE_ABORTED_BY_CALLBACK) {
        status = CTL_INTERRUPTED;
    } else if (result) {
        ctl_error("%s: %s", url, *detail ? detail : curl_easy_strerror(result));
        status = CTL_UNREACHABLE;
    } else if (!file_digest(part, digest) || strcmp(digest, f->digests[file]) != 0) {
        status = ctl_error("%s is not what it should be: its SHA-256 is %s, not %s", url, digest,
                           f->digests[file]);
    } else if (rename(part, path)) {
        status = ctl_error("cannot write %s: %s", path, strerror(errno));
    }
    if (status) {
        unlink(part);
    }
    return status;
}

/* A file of the cache, from any mirror if it isn't there yet. */
static int obtain(const fetch *f, size_t file, char *path, size_t size) {
    char digest[HEX];
    int status = CTL_ERROR;
    snprintf(path, size, "%s/%s", f->folder, files[file].name);
    if (file_digest(path, digest) && strcmp(digest, f->digests[file]) == 0) {
        return CTL_OK;
    }
    for (size_t i = 0; f->mirrors[i] && status && status != CTL_INTERRUPTED; i++) {
        ctl_say("fetching %s from %s", files[file].name, f->mirrors[i]);
        status = download_from(f, f->mirrors[i], file, path);
    }
    return status;
}

int ctl_data_fetch(gradd_client *client, const ctl_options *options) {
    const char *mirrors[] = {options->from, NULL};
    ctl_upload uploads[FILES];
    size_t which = 0;
    while (which < sizeof datasets / sizeof *datasets &&
           strcmp(datasets[which].name, options->argument) != 0) {
        which++;
    }
    if (which == sizeof datasets / sizeof *datasets) {
        ctl_error("fetch knows mnist and fashion-mnist, not '%s'; `gradctl data put` uploads files",
                  options->argument);
        return CTL_USAGE;
    }
    fetch f = {.options = options, .mirrors = options->from ? mirrors : datasets[which].mirrors};
    for (size_t i = 0; i < FILES; i++) {
        memcpy(f.digests[i], datasets[which].sha256[i], HEX);
    }
    int status = options->digests ? read_digests(options->digests, f.digests) : CTL_OK;
    if (!status) {
        status = cache_folder(datasets[which].name, f.folder, sizeof f.folder);
    }
    for (size_t i = 0; i < FILES && !status; i++) {
        status = obtain(&f, i, uploads[i].path, sizeof uploads[i].path);
        snprintf(uploads[i].split, sizeof uploads[i].split, "%s", files[i].split);
        uploads[i].part = files[i].part;
    }
    for (size_t i = 0; i < FILES && !status; i++) { /* once all are there */
        status = ctl_upload_file(client, options, options->words[1] ? options->words[1] : options->argument,
                                 &uploads[i]);
    }
    return status;
}
