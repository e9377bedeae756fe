// A model image: the input as a whole file, as a header, and, since checksums would keep the fuzzer out, as
// an index under a header that is right; the same as a model image, whose entries are looked up and, placed
// elsewhere, made into the weights of a runtime. Seeds: indexes of small images.
#include "model/image.h"

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <span>
#include <vector>

#include "base/sha256.h"
#include "memory/arena.h"
#include "model/image_file.h"
#include "model/image_format.h"
#include "model/packed_matrix.h"
#include "model/runtime_weights.h"

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

  auto arena = Arena::create(file.size());
  if (!arena) return 0;
  std::memcpy(arena->base(), file.data(), file.size());
  const auto model_image = ModelImage::parse(arena->span().first(file.size()));
  if (!model_image) return 0;
  const auto inside = [](std::span<const std::byte> run, std::span<const std::byte> all) {
    return run.empty() || (run.data() >= all.data() && run.data() + run.size() <= all.data() + all.size());
  };
  const auto placed = (*model_image)->placed_at((*model_image)->bytes().first(header.data_bytes));
  for (const ImageEntry& entry : (*image)->entries()) {
    const auto matrix = placed->matrix(entry.name);
    if (matrix && (!inside(matrix->bytes, placed->bytes()) || matrix->packed_bytes() != matrix->bytes.size()))
      std::abort();
    const auto vector = placed->vector(entry.name);
    if (vector && !inside(std::as_bytes(*vector), placed->bytes())) std::abort();
  }
  (void)RuntimeWeights::find(*placed);
  return 0;
}
