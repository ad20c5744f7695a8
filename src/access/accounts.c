/* The users that are connected, by name. One that leaves in debt is kept until it is paid: otherwise connecting again would pay it. */
#include <stdlib.h>
#include <string.h>

#include "access/internal.h"
#include "base/clock.h"
#include "base/error.h"

enum { IDLE_MAX = 1024 }; /* accounts without a client, beyond which those that owe nothing are looked for */

void accounts_init(struct accounts *accounts)
{
    pthread_mutex_init(&accounts->lock, NULL);
}

static void remove_row(struct accounts *accounts, struct account *row)
{
    HASH_DEL(accounts->rows, row);
    accounts->count--;
    free(row);
}

void accounts_fini(struct accounts *accounts)
{
    struct account *row, *next;
    HASH_ITER(hh, accounts->rows, row, next)
    remove_row(accounts, row);
    pthread_mutex_destroy(&accounts->lock);
}

static bool owes(const struct account *account, uint64_t now_ns)
{
    return atomic_load(&account->messages.paid_ns) > now_ns || atomic_load(&account->bytes.paid_ns) > now_ns;
}

int accounts_take(struct accounts *accounts, const char *name, size_t length, struct account **account)
{
    struct account *row;
    int error = 0;
    pthread_mutex_lock(&accounts->lock);
    HASH_FIND(hh, accounts->rows, name, length, row);
    if (row) {
        accounts->idle -= row->clients == 0;
    } else {
        row = accounts->count < ACCESS_ACCOUNTS_MAX ? calloc(1, sizeof *row + length + 1) : NULL;
        error = row ? 0 : accounts->count < ACCESS_ACCOUNTS_MAX ? ERR_NO_MEMORY : ERR_LIMIT;
        if (row) {
            memcpy(row->name, name, length);
            HASH_ADD_KEYPTR(hh, accounts->rows, row->name, length, row);
            accounts->count++;
        }
    }
    if (row) {
        row->clients++;
        *account = row;
    }
    pthread_mutex_unlock(&accounts->lock);
    return error;
}

static void sweep(struct accounts *accounts, uint64_t now_ns)
{
    struct account *row, *next;
    HASH_ITER(hh, accounts->rows, row, next)
    {
        if (row->clients == 0 && !owes(row, now_ns)) {
            accounts->idle--;
            remove_row(accounts, row);
        }
    }
}

void accounts_drop(struct accounts *accounts, struct account *account)
{
    pthread_mutex_lock(&accounts->lock);
    if (--account->clients == 0) {
        uint64_t now_ns = clock_monotonic_ns();
        if (owes(account, now_ns))
            accounts->idle++;
        else
            remove_row(accounts, account);
        if (accounts->idle > IDLE_MAX)
            sweep(accounts, now_ns);
    }
    pthread_mutex_unlock(&accounts->lock);
}
