#include "pool/image_mappings.h"

#include <algorithm>
#include <cstring>

namespace switchyard::pool {

bool ImageMappings::Mapping::gone() const {
  return std::memcmp(head.data(), memory->base(), std::min(head.size(), memory->bytes())) != 0;
}

Result<std::shared_ptr<const model::ModelImage>> ImageMappings::open(const SharedMemoryName& name) {
  const auto known = std::ranges::find(mappings_, name, &Mapping::name);
  if (known != mappings_.end()) {
    mappings_.splice(mappings_.begin(), mappings_, known);
    return known->image;
  }
  std::erase_if(mappings_, [](const Mapping& mapping) { return mapping.gone(); });
  auto opened = SharedMemory::open(name, SharedMemory::Access::read);
  if (!opened) return fail_at("opening the image's shared memory", opened.error());
  Mapping mapping{.name = name, .memory = std::make_shared<const SharedMemory>(*std::move(opened))};
  auto image = open_image_(mapping.memory->span(), mapping.memory);
  if (!image) return fail_at("reading the image", image.error());
  mapping.image = *std::move(image);
  std::memcpy(mapping.head.data(), mapping.memory->base(),
              std::min(mapping.head.size(), mapping.memory->bytes()));
  mappings_.push_front(std::move(mapping));
  if (mappings_.size() > kMost) mappings_.pop_back();
  return mappings_.front().image;
}

bool ImageMappings::still_there(const SharedMemoryName& name) {
  const auto known = std::ranges::find(mappings_, name, &Mapping::name);
  if (known == mappings_.end()) return false;
  if (!known->gone()) return true;
  mappings_.erase(known);
  return false;
}

}  // namespace switchyard::pool
