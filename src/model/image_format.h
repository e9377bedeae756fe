// Header and index of an image file as bytes: what ImageWriter and ImageFile share.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "base/sha256.h"
#include "model/image_file.h"
#include "switchyard/result.h"

namespace switchyard::model {

inline constexpr std::string_view kImageMagic = "SWYIMAGE";
// At the head of a file that is being written, until the header takes its place.
inline constexpr std::string_view kUnfinishedImageMagic = "SWYIMNEW";
inline constexpr std::uint32_t kImageVersion = 1;

struct ImageHeader {
  std::uint64_t data_bytes = 0;   // data begins at kImageAlignment
  std::uint64_t index_bytes = 0;  // the index follows the data, and ends the file
  Sha256Digest data_hash{};
  Sha256Digest index_hash{};
};

// One page.
std::vector<std::byte> serialize_image_header(const ImageHeader& header);
// `file`: the whole file. Checks magic, version, checksum, and that the parts make up the file. Errors:
// corrupt, unsupported.
Result<ImageHeader> parse_image_header(std::span<const std::byte> file);

std::vector<std::byte> serialize_image_index(const ImageDescription& description,
                                             std::span<const ImageEntry> entries);
struct ImageIndex {
  ImageDescription description;
  std::vector<ImageEntry> entries;
};
// Checks that every entry lies within the data, aligned, after the one before it, under a name of its own.
// Errors: corrupt, and those of parse_config.
Result<ImageIndex> parse_image_index(std::span<const std::byte> bytes, std::uint64_t data_bytes);

}  // namespace switchyard::model
