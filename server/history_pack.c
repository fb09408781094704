/* history_pack.c -- a history's rows and values as bytes, and back.
 *
 *     "GSM" 1, then for each series: length of its key (1 byte, 0: the steps), key, varint how many items,
 *     items: varint sequence, step and time, each less the one before (the last two zigzag), and
 *       of a step   1 byte of what it lacks, varint of lr's bits with their bytes reversed xor those before,
 *                   4 float32
 *       of a value  float64
 *
 * A step takes about 21 bytes. */
#include <stdlib.h>
#include <string.h>

#include "history.h"

enum {
    VERSION = 1,
    VARINT = 10,                                           /* bytes at most */
    LONGEST = 4 * VARINT + 1 + 4 * (int)sizeof(float) + 8, /* bytes of an item at most */
    SLICE = 64,   /* items that are packed before the lock is given back */
    GAP = 1 << 20 /* more sequence numbers than are given between two packs */
};

static const char magic[4] = {'G', 'S', 'M', VERSION};

/* What an item is written as the difference to. */
typedef struct state {
    gs_item item;
    uint64_t lr;
} state;

/* ---- writing ----------------------------------------------------------------------------------------- */

typedef struct writer {
    uint8_t *data;
    size_t size, capacity;
} writer;

static bool make_room(writer *w, size_t size) {
    if (w->capacity - w->size >= size) {
        return true;
    }
    size_t capacity = w->capacity ? 2 * w->capacity : 1024;
    while (capacity - w->size < size) {
        capacity *= 2;
    }
    uint8_t *grown = realloc(w->data, capacity);
    if (grown) {
        w->data = grown;
        w->capacity = capacity;
    }
    return grown;
}

static void put_bytes(writer *w, const void *bytes, size_t size) {
    memcpy(w->data + w->size, bytes, size);
    w->size += size;
}

static void put_varint(writer *w, uint64_t value) {
    for (; value >= 0x80; value >>= 7) {
        w->data[w->size++] = (uint8_t)(value | 0x80);
    }
    w->data[w->size++] = (uint8_t)value;
}

static void put_difference(writer *w, int64_t value, int64_t before) {
    const uint64_t difference = (uint64_t)value - (uint64_t)before;
    put_varint(w, difference << 1 ^ (difference >> 63 ? UINT64_MAX : 0));
}

static uint64_t reversed_bits(double value) {
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    return __builtin_bswap64(bits);
}

/* There is room for it. */
static void put_item(writer *w, const gs_item *item, bool is_step, state *before) {
    put_varint(w, item->sequence - before->item.sequence);
    put_difference(w, item->step, before->item.step);
    put_difference(w, item->time_ms, before->item.time_ms);
    before->item = *item;
    if (!is_step) {
        put_bytes(w, &((const gs_scalar *)item)->value, sizeof(double));
        return;
    }
    const gs_row *row = (const gs_row *)item;
    const float floats[4] = {row->loss, row->grad_norm, row->accuracy, row->samples_per_second};
    const uint64_t lr = reversed_bits(row->lr);
    put_bytes(w, &row->lacks, 1);
    put_varint(w, lr ^ before->lr);
    put_bytes(w, floats, sizeof floats);
    before->lr = lr;
}

/* Add a series' items of sequence numbers since + 1 ... view->cursor. @return 0; -1: no memory; 1: a cut */
static int pack_series(gs_history *history, const gs_view *view, size_t key, uint64_t since, writer *w,
                       gs_pack *pack) {
    state before = {.lr = 0};
    const bool is_step = key == 0;
    bool begun = false;
    for (size_t at = 0, end = SIZE_MAX; at < end;) {
        if (!make_room(w, GS_KEY_TEXT + VARINT + SLICE * LONGEST)) {
            return -1;
        }
        pthread_mutex_lock(&history->lock);
        const gs_track *track = view->cuts == history->cuts ? gs_history_track(history, key) : NULL;
        if (track && !begun) {
            at = gs_track_find_after(track, since);
            end = gs_track_find_after(track, view->cursor);
        }
        if (!track || (at < track->first && at < end)) { /* or the oldest have gone meanwhile */
            pthread_mutex_unlock(&history->lock);
            return 1;
        }
        if (!begun && at < end) {
            const size_t length = is_step ? 0 : strlen(view->keys[key]);
            const uint64_t first = gs_track_at(track, at)->sequence;
            const int64_t step = gs_track_at(track, end - 1)->step;
            put_bytes(w, &(const uint8_t){(uint8_t)length}, 1);
            put_bytes(w, view->keys[key], length);
            put_varint(w, end - at);
            pack->first = pack->first && pack->first < first ? pack->first : first;
            pack->max_step = pack->max_step > step ? pack->max_step : step;
            begun = true;
        }
        for (size_t i = 0; i < SLICE && at < end; i++, at++) {
            put_item(w, gs_track_at(track, at), is_step, &before);
        }
        pthread_mutex_unlock(&history->lock);
    }
    return 0;
}

static int pack_view(gs_history *history, const gs_view *view, uint64_t since, gs_pack *ret_pack) {
    writer w = {.data = NULL};
    gs_pack pack = {.last = view->cursor, .max_step = INT64_MIN};
    int result = make_room(&w, sizeof magic) ? 0 : -1;
    if (!result) {
        put_bytes(&w, magic, sizeof magic);
    }
    for (size_t key = 0; key < view->key_count && !result; key += key ? 1 : GS_STEP_KEYS) {
        result = pack_series(history, view, key, since, &w, &pack);
    }
    if (!result && pack.first) {
        pack.data = w.data;
        pack.size = w.size;
        w.data = NULL;
    }
    free(w.data);
    if (!result) {
        *ret_pack = pack;
    }
    return result;
}

int gs_history_pack(gs_history *history, uint64_t since, gs_pack *ret_pack) {
    int result;
    do {
        gs_view view;
        if (gs_history_look(history, &view)) {
            return -1;
        }
        result = pack_view(history, &view, since, ret_pack);
        gs_view_release(&view);
    } while (result > 0);
    return result;
}

/* ---- reading ----------------------------------------------------------------------------------------- */

typedef struct reader {
    const uint8_t *at, *end;
    bool damaged;
} reader;

static void get_bytes(reader *r, void *bytes, size_t size) {
    if (r->damaged || (size_t)(r->end - r->at) < size) {
        r->damaged = true;
        memset(bytes, 0, size);
        return;
    }
    memcpy(bytes, r->at, size);
    r->at += size;
}

static uint64_t get_varint(reader *r) {
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
        uint8_t byte;
        get_bytes(r, &byte, 1);
        value |= (uint64_t)(byte & 0x7f) << shift;
        if (!(byte & 0x80)) {
            return value;
        }
    }
    r->damaged = true;
    return 0;
}

static int64_t get_difference(reader *r, int64_t before) {
    const uint64_t zigzag = get_varint(r);
    return (int64_t)((uint64_t)before + (zigzag >> 1 ^ (0 - (zigzag & 1))));
}

/* Of either kind. */
typedef union any_item {
    gs_item item;
    gs_row row;
    gs_scalar scalar;
} any_item;

static void get_item(reader *r, bool is_step, state *before, any_item *item) {
    const gs_item last = before->item;
    before->item.sequence += get_varint(r);
    before->item.step = get_difference(r, last.step);
    before->item.time_ms = get_difference(r, last.time_ms);
    r->damaged |= before->item.sequence <= last.sequence;
    *item = (any_item){.item = before->item};
    if (!is_step) {
        get_bytes(r, &item->scalar.value, sizeof(double));
        return;
    }
    float floats[4];
    get_bytes(r, &item->row.lacks, 1);
    before->lr ^= get_varint(r);
    get_bytes(r, floats, sizeof floats);
    const uint64_t lr = __builtin_bswap64(before->lr);
    memcpy(&item->row.lr, &lr, sizeof lr);
    item->row.loss = floats[0];
    item->row.grad_norm = floats[1];
    item->row.accuracy = floats[2];
    item->row.samples_per_second = floats[3];
}

/* Read one series; add its items if `history` is given (its lock held). @return 0; -1: no memory */
static int unpack_series(gs_history *history, reader *r) {
    char key[GS_KEY_TEXT] = "";
    uint8_t length;
    get_bytes(r, &length, 1);
    if (length >= GS_KEY_TEXT) {
        r->damaged = true;
        return 0;
    }
    get_bytes(r, key, length);
    r->damaged |= strlen(key) != length;
    uint64_t count = get_varint(r);
    gs_series *series = history && length ? gs_history_series(history, key) : NULL;
    if (history && length && !series) {
        return -1;
    }
    state before = {.lr = 0};
    for (; count && !r->damaged; count--) {
        any_item item;
        get_item(r, !length, &before, &item);
        if (!history) {
            continue;
        }
        gs_track *track = series ? &series->track : &history->steps;
        const gs_item *last = gs_track_last(track);
        r->damaged |= last && item.item.sequence <= last->sequence;
        if (!r->damaged && !gs_history_append(history, track, &item.item)) {
            return -1;
        }
        if (history->sequence < item.item.sequence + GAP) {
            history->sequence = item.item.sequence + GAP;
        }
    }
    return 0;
}

int gs_history_unpack(gs_history *history, const void *data, size_t size, gp_error *error) {
    int result = 0;
    reader dry = {.at = data, .end = (const uint8_t *)data + size};
    char head[sizeof magic];
    get_bytes(&dry, head, sizeof head);
    dry.damaged |= memcmp(head, magic, sizeof magic) != 0;
    reader r = dry;
    while (dry.at < dry.end && !dry.damaged) {
        unpack_series(NULL, &dry); /* first see whether all of it is sound */
    }
    r.damaged = dry.damaged;
    pthread_mutex_lock(&history->lock);
    while (r.at < r.end && !r.damaged && !result) {
        result = unpack_series(history, &r);
    }
    pthread_mutex_unlock(&history->lock);
    return result      ? gp_fail(error, GP_OUT_OF_MEMORY, "", "out of memory for the history of a model")
           : r.damaged ? gp_fail(error, GP_INTERNAL, "", "a piece of a model's history is damaged")
                       : 0;
}
