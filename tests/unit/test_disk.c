/* The operating system's files behind the journal's table of a disk. */
#include "unit.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "folder.h"
#include "journal/disk.h"

/* "NAME" in the folder `folder` below the test's. */
static const char *path_of(const char *folder, const char *name, char path[512])
{
    snprintf(path, 512, "%s/%s%s", test_folder, folder, name);
    return path;
}

static void a_file_that_lost_its_name_is_found_out(void **state)
{
    (void)state;
    struct disk *disk = disk_posix();
    char folder[512], elsewhere[512], path[512], other[512];
    path_of("stream", "", folder);
    path_of("elsewhere", "", elsewhere);
    path_of("stream", "/active", path);
    path_of("stream", "/other", other);
    assert_int_equal(disk->ops->make_folder(disk, folder), 0);
    int file = disk->ops->open(disk, path, DISK_CREATE);
    assert_true(file >= 0);
    assert_int_equal(disk->ops->check_name(disk, path, file), 0);

    assert_int_equal(disk->ops->rename(disk, folder, elsewhere), 0);
    assert_int_equal(disk->ops->check_name(disk, path, file), -ESTALE);
    assert_int_equal(disk->ops->make_folder(disk, folder), 0);
    assert_int_equal(disk->ops->check_name(disk, path, file), -ESTALE);
    int replacement = disk->ops->open(disk, path, DISK_CREATE);
    assert_true(replacement >= 0);
    assert_int_equal(disk->ops->check_name(disk, path, file), -ESTALE);
    assert_int_equal(disk->ops->check_name(disk, path, replacement), 0);

    assert_int_equal(disk->ops->remove(disk, path), 0);
    assert_int_equal(disk->ops->check_name(disk, path, replacement), -ESTALE);
    assert_int_equal(disk->ops->check_name(disk, other, replacement), -ESTALE);
    disk->ops->close(disk, replacement);
    disk->ops->close(disk, file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_file_that_lost_its_name_is_found_out, test_folder_make, test_folder_remove),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
