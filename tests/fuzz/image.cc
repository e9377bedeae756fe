// A model image: the input as a whole file, as a header, and, since checksums would keep the fuzzer out, as
// an index under a header that is right. Seeds: indexes of small images.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <vector>

#include "base/sha256.h"
#include "model/image_file.h"
#include "model/image_format.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace switchyard;
  using namespace switchyard::model;
  const auto bytes = std::as_bytes(std::span(data, size));
  (void)ImageFile::parse(bytes);
  (void)parse_config(bytes);

  ImageHeader header{.data_bytes = 4 * kImageAlignment, .index_bytes = size};
  Sha256 index_hash;
  index_hash.update(bytes);
  header.index_hash = index_hash.finish();
  std::vector<std::byte> file = serialize_image_header(header);
  file.resize(kImageAlignment + header.data_bytes);
  file.insert(file.end(), bytes.begin(), bytes.end());
  const auto image = ImageFile::parse(file);
  if (!image) return 0;
  for (const ImageEntry& entry : (*image)->entries()) {
    const auto run = (*image)->data(entry);
    for (const std::byte byte : run) {
      if (byte != std::byte{0}) std::abort();  // the data is zeros: anything else is outside of it
    }
    if ((*image)->find(entry.name) != &entry) std::abort();
  }
  return 0;
}
