#include "model/image_format.h"

#include <cstring>
#include <set>

#include "base/bytes.h"

namespace switchyard::model {
namespace {

constexpr std::size_t kHeaderBytes = 8 + 4 + 4 + 8 + 8 + 32 + 32;  // what the header's own hash covers
constexpr std::size_t kSmallestEntry = 4 + 1 + 4 + 16 + 16 + 8 + 8;

Sha256Digest sha256(std::span<const std::byte> bytes) {
  Sha256 hash;
  hash.update(bytes);
  return hash.finish();
}

}  // namespace

std::vector<std::byte> serialize_image_header(const ImageHeader& header) {
  ByteWriter writer;
  writer.write_bytes(std::as_bytes(std::span(kImageMagic)));
  writer.write(kImageVersion);
  writer.write<std::uint32_t>(0);
  writer.write(header.data_bytes);
  writer.write(header.index_bytes);
  writer.write(header.data_hash);
  writer.write(header.index_hash);
  writer.write(sha256(writer.bytes()));
  std::vector<std::byte> page = writer.take();
  page.resize(kImageAlignment);
  return page;
}

Result<ImageHeader> parse_image_header(std::span<const std::byte> file) {
  if (file.size() < kImageAlignment) return fail(ErrorCode::corrupt, "the image ends within its header");
  ByteReader reader(file.first(kImageAlignment));
  const auto magic = reader.read_bytes(kImageMagic.size());
  if (std::memcmp(magic.data(), kImageMagic.data(), kImageMagic.size()) != 0) {
    return fail(ErrorCode::corrupt, "this is not a model image");
  }
  const auto version = reader.read<std::uint32_t>();
  reader.read<std::uint32_t>();
  ImageHeader header;
  header.data_bytes = reader.read<std::uint64_t>();
  header.index_bytes = reader.read<std::uint64_t>();
  header.data_hash = reader.read<Sha256Digest>();
  header.index_hash = reader.read<Sha256Digest>();
  if (reader.read<Sha256Digest>() != sha256(file.first(kHeaderBytes))) {
    return fail(ErrorCode::corrupt, "the image's header is damaged");
  }
  if (version != kImageVersion) {
    return fail(ErrorCode::unsupported, "the image is of version {}; this program reads version {}", version,
                kImageVersion);
  }
  const std::uint64_t rest = file.size() - kImageAlignment;
  if (header.data_bytes % kImageAlignment != 0 || header.data_bytes > rest ||
      header.index_bytes != rest - header.data_bytes) {
    return fail(ErrorCode::corrupt,
                "the image has {} bytes, not the {} data and {} index bytes of its header", file.size(),
                header.data_bytes, header.index_bytes);
  }
  return header;
}

std::vector<std::byte> serialize_image_index(const ImageDescription& description,
                                             std::span<const ImageEntry> entries) {
  ByteWriter writer;
  writer.write(description.layout_version);
  writer.write_string(description.source_hash);
  writer.write_vector<std::byte>(serialize(description.config));
  writer.write_vector<std::byte>(description.tokenizer);
  writer.write(static_cast<std::uint32_t>(entries.size()));
  for (const ImageEntry& entry : entries) {
    writer.write_string(entry.name);
    writer.write(entry.format);
    writer.write(entry.shape);
    writer.write(entry.parameters);
    writer.write(entry.offset);
    writer.write(entry.bytes);
  }
  return writer.take();
}

Result<ImageIndex> parse_image_index(std::span<const std::byte> bytes, std::uint64_t data_bytes) {
  ByteReader reader(bytes);
  ImageIndex index;
  index.description.layout_version = reader.read<std::uint32_t>();
  index.description.source_hash = reader.read_string();
  const auto config_bytes = reader.read_vector<std::byte>();
  index.description.tokenizer = reader.read_vector<std::byte>();
  const auto count = reader.read<std::uint32_t>();
  if (!reader.ok() || count > reader.remaining() / kSmallestEntry) {
    return fail(ErrorCode::corrupt, "the image's index is truncated");
  }
  auto config = parse_config(config_bytes);
  if (!config) return pass(config.error());
  index.description.config = std::move(*config);
  index.entries.reserve(count);
  std::set<std::string_view> names;
  std::uint64_t end = 0;
  for (std::uint32_t i = 0; i < count; ++i) {
    ImageEntry entry;
    entry.name = reader.read_string();
    entry.format = reader.read<std::uint32_t>();
    entry.shape = reader.read<std::array<std::uint64_t, 2>>();
    entry.parameters = reader.read<std::array<std::uint32_t, 4>>();
    entry.offset = reader.read<std::uint64_t>();
    entry.bytes = reader.read<std::uint64_t>();
    if (!reader.ok()) return fail(ErrorCode::corrupt, "the image's index is truncated");
    if (entry.offset % kImageAlignment != 0 || entry.offset < end || entry.offset > data_bytes ||
        entry.bytes > data_bytes - entry.offset) {
      return fail(ErrorCode::corrupt, "image entry '{}' ({} bytes at {}) is outside of the data or overlaps",
                  entry.name, entry.bytes, entry.offset);
    }
    end = entry.offset + entry.bytes;
    index.entries.push_back(std::move(entry));
    if (index.entries.back().name.empty() || !names.insert(index.entries.back().name).second) {
      return fail(ErrorCode::corrupt, "image entry '{}' has no name of its own", index.entries.back().name);
    }
  }
  if (!reader.finished()) return fail(ErrorCode::corrupt, "the image's index is longer than its entries");
  return index;
}

}  // namespace switchyard::model
