/* A made-up shop for the demo capture: clerks take orders from a pipe, price them, and hand them to one journal under a
 * lock. It computes, waits for a lock, for a pipe, for the disk and for time, and its functions have names.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LINES 4096
#define KEEP __attribute__((noinline))

struct order {
	unsigned id, seed;
};
struct line {
	unsigned article, amount, price;
};

static int orders[2];
static int journal;
static pthread_mutex_t journal_lock = PTHREAD_MUTEX_INITIALIZER;

static KEEP void parse_order(struct order order, struct line *lines)
{
	for (unsigned i = 0; i < LINES; i++) {
		order.seed = order.seed * 1664525u + 1013904223u;
		lines[i] = (struct line){ order.seed >> 8, order.seed >> 28, order.seed >> 20 };
	}
}

static KEEP int compare_lines(const void *a, const void *b)
{
	const struct line *x = a, *y = b;
	return x->article < y->article ? -1 : x->article > y->article;
}

static KEEP void sort_lines(struct line *lines)
{
	/* Shell's: qsort() of libc keeps no frame pointer, and what lies above it would be lost. */
	for (unsigned gap = LINES / 2; gap; gap /= 2)
		for (unsigned i = gap; i < LINES; i++)
			for (unsigned j = i; j >= gap && compare_lines(&lines[j - gap], &lines[j]) > 0; j -= gap) {
				struct line swap = lines[j];
				lines[j] = lines[j - gap];
				lines[j - gap] = swap;
			}
}

static KEEP unsigned apply_discounts(const struct line *lines, unsigned total)
{
	for (unsigned round = 0; round < 24; round++)
		for (unsigned i = 0; i < LINES; i++)
			total += lines[i].amount * (total ^ lines[i].price) % (round + 3);
	return total;
}

static KEEP unsigned price_order(struct line *lines)
{
	sort_lines(lines);
	return apply_discounts(lines, 0);
}

static KEEP unsigned long hash_receipt(const struct line *lines, unsigned total)
{
	unsigned long hash = 0xcbf29ce484222325ul ^ total;
	for (unsigned round = 0; round < 12; round++)
		for (unsigned i = 0; i < LINES * sizeof *lines; i++)
			hash = (hash ^ ((const unsigned char *)lines)[i]) * 0x100000001b3ul;
	return hash;
}

static KEEP void write_receipt(struct order order, unsigned long hash)
{
	unsigned long record[512] = { order.id, hash };
	if (pwrite(journal, record, sizeof record, (long)(order.id % 4096) * (long)sizeof record) < 0)
		abort();
}

static KEEP void append_to_journal(struct order order, unsigned long hash)
{
	pthread_mutex_lock(&journal_lock);
	write_receipt(order, hash);
	if (order.id % 4 == 0)
		fdatasync(journal);
	pthread_mutex_unlock(&journal_lock);
}

static KEEP void serve_order(struct order order)
{
	static __thread struct line lines[LINES];
	parse_order(order, lines);
	append_to_journal(order, hash_receipt(lines, price_order(lines)));
}

static KEEP void *clerk(void *unused)
{
	struct order order;
	(void)unused;
	pthread_setname_np(pthread_self(), "clerk");
	while (read(orders[0], &order, sizeof order) == (long)sizeof order)
		serve_order(order);
	return NULL;
}

static KEEP void take_orders(void)
{
	for (unsigned id = 1;; id++) {
		struct order order = { id, id * 2654435761u };
		struct timespec pause = { 0, 1000000 + (long)(order.seed % 14000000u) };
		if (write(orders[1], &order, sizeof order) != (long)sizeof order)
			return;
		nanosleep(&pause, NULL);
	}
}

int main(int count, char **arguments)
{
	pthread_t threads[3];
	journal = open(count > 1 ? arguments[1] : "journal", O_RDWR | O_CREAT | O_TRUNC, 0600);
	if (journal < 0 || pipe(orders))
		return 1;
	for (int i = 0; i < 3; i++)
		pthread_create(&threads[i], NULL, clerk, NULL);
	take_orders();
	return 0;
}
