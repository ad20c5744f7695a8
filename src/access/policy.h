/* What is written down about access: who may connect without a name, the users, the rules, the quotas. It never changes once it is read; a
 * reload makes another one. Shared by counting: whoever is shown one calls policy_share to keep it.
 *
 * Rules allow, and none forbids: what any rule that fits a client allows is allowed, and nothing else. Their order means nothing, and there
 * is no filter that could match what a wider one brings in. Without a file of rules everything is allowed to whoever may connect. Of quotas
 * the first that fits counts. */
#ifndef ACCESS_POLICY_H
#define ACCESS_POLICY_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "access/access.h"
#include "access/users.h"
#include "config/problems.h"
#include "config/yaml.h"

enum { POLICY_FILTERS_MAX = 256 /* of one list of a rule */ };

struct policy_filter {
    const char *text; /* zero-terminated; %u, %c and %% stand for themselves */
    uint32_t length;
    bool user, client, percent; /* what stands in it */
};

struct policy_rule {
    const char *user, *client;                 /* patterns; NULL: any */
    struct policy_filter *publish, *subscribe; /* owned */
    uint32_t publish_count, subscribe_count;
};

struct policy_quota {
    const char *user, *client; /* patterns; NULL: any */
    struct access_limits limits;
};

struct access_policy {
    _Atomic uint32_t shares;
    enum access_anonymous anonymous;
    bool has_users, has_rules;
    struct users users;
    struct policy_rule *rules; /* [rule_count] */
    size_t rule_count;
    struct policy_quota *quotas; /* [quota_count] */
    size_t quota_count;
    struct yaml_tree tree; /* behind the texts */
};

/* Whether a text fits a pattern: '*' stands for any bytes, '?' for one. In time proportional to the product of the lengths at worst. */
bool policy_pattern_fits(const char *pattern, const char *text);

/* Reads the rules of `length` bytes into a policy of zeros. Mistakes go to `problems`. Returns 0, ERR_CONFIG or ERR_NO_MEMORY; what was
 * read is given back by policy_release in any case. Pure. */
int policy_parse(struct access_policy *policy, const char *source, const uint8_t *bytes, size_t length, struct problems *problems);

struct access_policy *policy_share(struct access_policy *policy);
void policy_release(struct access_policy *policy); /* accepts NULL */

#endif
