// Images of the model cache that this process has mapped before: the next load of one finds its pages in
// place, which is a third of the time that a load takes.
//
// A mapping keeps no memory: when the cache lets an image go, its pages go with it, whoever maps them
// (SharedMemory::discard). What is left here, page tables, goes when the next image is mapped.
// One thread at a time.
#pragma once

#include <array>
#include <cstddef>
#include <functional>
#include <list>
#include <memory>
#include <span>

#include "memory/shared_memory.h"
#include "model/image.h"
#include "switchyard/result.h"

namespace switchyard::pool {

using OpenImage = std::function<Result<std::shared_ptr<const model::ModelImage>>(
    std::span<const std::byte> file, std::shared_ptr<const void> keep)>;

class ImageMappings {
 public:
  static constexpr std::size_t kMost = 64;

  explicit ImageMappings(OpenImage open_image) : open_image_(std::move(open_image)) {}

  // Errors: those of SharedMemory::open and of the image.
  Result<std::shared_ptr<const model::ModelImage>> open(const SharedMemoryName& name);
  // Whether the bytes were there all the time from open() to now; if not, the mapping is forgotten.
  bool still_there(const SharedMemoryName& name);

 private:
  struct Mapping {
    SharedMemoryName name;
    std::shared_ptr<const SharedMemory> memory;
    std::shared_ptr<const model::ModelImage> image;
    std::array<std::byte, 64> head{};  // of the image, which begins with what is never all zeros

    bool gone() const;
  };

  const OpenImage open_image_;
  std::list<Mapping> mappings_;  // the last used first
};

}  // namespace switchyard::pool
