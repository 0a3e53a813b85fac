"""Where what the method is given comes from: mattes, views, video, keypoints and flow, each by a swappable provider."""
