/* packs.h -- a model's metrics in the store: rows of table metrics, each a pack of what came since the one
 * before (history.h). On the store's thread, where nothing else is said. */
#ifndef GRADD_SERVER_PACKS_H
#define GRADD_SERVER_PACKS_H

#include "history.h"
#include "store.h"

/** Add what came after sequence number `since`. @return 0 with *ret_last, the `since` of the next time; -1 */
int gs_packs_add(gs_store *store, int64_t model, gs_history *history, uint64_t since, uint64_t *ret_last,
                 gp_error *error);
/** Forget what lies past a step, whatever there is of it in memory. @return 0; -1 */
int gs_packs_cut(gs_store *store, int64_t model, int64_t step, gp_error *error);
/** Put all that there is into an empty history; of many packs one is made. A pack that is damaged is skipped,
 * and counted.
 *  @return 0; -1 */
int gs_packs_load(gs_store *store, int64_t model, gs_history *history, int *ret_damaged, gp_error *error);

#endif
