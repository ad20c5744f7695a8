/* Private to bus/: linked lists whose links lie in what they hold, DL_APPEND and the like. */
#ifndef BUS_LISTS_H
#define BUS_LISTS_H

#include <utlist.h>

#endif
