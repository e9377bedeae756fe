// Small files, whole: read within a limit, replaced at once. Any thread.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include "switchyard/result.h"

namespace switchyard {

// The bytes of a regular file. A pipe or a device is refused: its reading may not end. The file's own idea of
// its size is not asked. Errors, which name the path: not_found, denied, invalid (not a regular file),
// out_of_range (more than `most` bytes), io.
Result<std::string> read_file(const std::filesystem::path& path, std::uint64_t most);

// Makes the file, or puts another one in its place: readers see the old bytes or the new ones. Makes its
// directory. Not synced to the disk. Errors: io.
Status replace_file(const std::filesystem::path& path, std::string_view bytes);

// A name beside `path` that nobody else draws, for a file that is to take its place.
std::filesystem::path temporary_beside(const std::filesystem::path& path);

}  // namespace switchyard
